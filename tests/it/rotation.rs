//! A root is replaced by its successor: asked in shadow first, in use then, alone at last.

use crate::support::egret::{Egret, listener};
use crate::support::free_port;
use crate::support::peer::{Peer, anonymous};
use crate::support::pki::Pki;
use crate::support::plain;

const HOST: &str = "server.example.com";

/// An upstream for each of two servers, one of the old authority, one of the new, under the same trust.
fn sections(trust: &str, old: &Peer, new: &Peer) -> String {
    let upstream = |name: &str, peer: &Peer| {
        format!("[upstreams.{name}]\nservers = [\"{}\"]\n", peer.address)
            + &format!("tls = {{ trust = \"house\", server_name = \"{HOST}\", resumption = false }}\n")
    };
    format!("[trust.house]\n{trust}\n") + &upstream("old", old) + &upstream("new", new)
}

#[test]
fn a_root_can_be_replaced_by_what_is_counted() {
    let (old, new) = (Pki::named("Old"), Pki::named("New"));
    let (old_peer, new_peer) =
        (Peer::echo(anonymous(&old.server(&[HOST]))), Peer::echo(anonymous(&new.server(&[HOST]))));
    let listeners = listener("old", free_port(), "old") + &listener("new", free_port(), "new");
    let both = format!("roots = [{:?}, {:?}]\n", old.root(), new.root());
    let shadow = format!("{both}candidate_roots = [{:?}]", new.root());
    let egret = Egret::start(&(sections(&shadow, &old_peer, &new_peer) + &listeners));
    for name in ["old", "new"] {
        for _ in 0..3 {
            assert_eq!(plain::ask_and_finish(egret.address(name), b"ping").0, b"ping", "the shadow refuses nobody");
        }
    }
    let metrics = egret.metrics();
    let candidates = |upstream: &str, reason: &str| {
        metrics.sum("egret_candidate_roots_total", &[("upstream", upstream), ("reason", reason)])
    };
    assert_eq!((candidates("old", "certificate_unknown_issuer"), candidates("old", "passed")), (3.0, 0.0));
    assert_eq!((candidates("new", "passed"), candidates("new", "certificate_unknown_issuer")), (3.0, 0.0));
    let vouched = |upstream: &str, root: &str| {
        let root = format!("CN=Test Root {root}");
        metrics.sum("egret_chains_vouched_total", &[("upstream", upstream), ("root", &root)])
    };
    assert_eq!((vouched("old", "Old"), vouched("old", "New")), (3.0, 0.0), "a chain that is remembered counts as well");
    assert_eq!((vouched("new", "New"), vouched("new", "Old")), (3.0, 0.0));

    // The candidate vouches for nobody: with the old root alone, the new server is refused.
    let old_only = format!("roots = [{:?}]\ncandidate_roots = [{:?}]", old.root(), new.root());
    egret.rewrite(&(sections(&old_only, &old_peer, &new_peer) + &listeners));
    assert!(egret.reload());
    assert_eq!(plain::ask_and_finish(egret.address("old"), b"ping").0, b"ping");
    egret.wait_for_log("the old server's stream", |line| line["upstream"] == "old");
    assert!(plain::ask_and_finish(egret.address("new"), b"ping").0.is_empty(), "the candidate vouched");
    egret.wait_for_log("a refusal", |line| line["reason"] == "certificate_unknown_issuer" && line["upstream"] == "new");

    // The new one alone, when the old is used no more.
    egret.rewrite(&(sections(&format!("roots = [{:?}]", new.root()), &old_peer, &new_peer) + &listeners));
    assert!(egret.reload());
    assert_eq!(plain::ask_and_finish(egret.address("new"), b"ping").0, b"ping");
}
