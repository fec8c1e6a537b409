//! A kernel that makes the records: the keys it gets, and its records and errors.

use super::*;
use crate::tls::kernel::Offers;

/// A session of which the kernel has both directions, and its server without the tickets.
fn handed(suite: SupportedCipherSuite) -> (Session, Server, Arc<Tickets>) {
    let (mut session, server, mut down, tickets) = pair_for(Some(&Offers::everything()), suite);
    open_all(&mut session, &mut down).unwrap();
    session.handed_over(Direction::Send, true);
    session.handed_over(Direction::Receive, true);
    (session, server, tickets)
}

fn sequence(info: &KeyInfo) -> u64 {
    u64::from_be_bytes(*info.bytes().last_chunk().unwrap())
}

#[test]
fn the_kernel_begins_where_user_space_ended() {
    for suite in ALL {
        let (mut session, mut server, mut down, _) = pair_for(Some(&Offers::everything()), suite);
        open_all(&mut session, &mut down).unwrap();
        assert!(session.shows() && !session.shows());
        let before = |session: &Session, direction| sequence(&session.key_info(direction).unwrap());
        let sent = before(&session, Direction::Send);
        let received = before(&session, Direction::Receive);
        sealed(&mut session, b"one");
        sealed(&mut session, b"two");
        open_all(&mut session, &mut server.data(b"three")).unwrap();
        assert_eq!(before(&session, Direction::Send), sent + 2);
        assert_eq!(before(&session, Direction::Receive), received + 1);
    }
}

#[test]
fn what_the_kernel_has_is_written_as_it_is() {
    let (mut session, _, _) = handed(ALL[0]);
    assert_eq!(session.layout(), Layout::Kernel);
    assert_eq!(sealed(&mut session, b"plain"), b"plain");
    assert!(session.in_kernel(Direction::Send) && !session.is_asked(Direction::Send));
    assert!(session.key_info(Direction::Send).is_none());
}

#[test]
fn a_direction_that_the_kernel_refuses_stays_here() {
    let (mut session, mut server, mut down, _) = pair_for(Some(&Offers::everything()), ALL[0]);
    open_all(&mut session, &mut down).unwrap();
    session.handed_over(Direction::Send, false);
    session.handed_over(Direction::Receive, true);
    assert!(!session.is_asked(Direction::Send) && !session.in_kernel(Direction::Send));
    assert_eq!(server.open(&sealed(&mut session, b"sealed here")).1, b"sealed here");
    assert_eq!(session.process_record(ContentType::Handshake, &[24, 0, 0, 1, 1]), Ok(Processed::Quiet));
    assert!(session.renewed(Direction::Receive).is_some() && session.renewed(Direction::Send).is_none());
    assert_eq!(server.open(&control(&mut session)), (ContentType::Handshake, vec![24, 0, 0, 1, 0]));
}

#[test]
fn a_key_update_before_the_handing_over_is_not_lost() {
    let (mut session, mut server, mut down, _) = pair_for(Some(&Offers::everything()), ALL[0]);
    open_all(&mut session, &mut down).unwrap();
    let old = session.key_info(Direction::Receive).unwrap().bytes().to_vec();
    open_all(&mut session, &mut [server.key_update(0), server.data(b"new key")].concat()).unwrap();
    let new = session.key_info(Direction::Receive).unwrap();
    assert_ne!(new.bytes()[4..old.len() - 8], old[4..old.len() - 8]);
    assert_eq!(sequence(&new), 1);
}

#[test]
fn key_updates_are_answered_and_the_kernel_gets_both_keys_once() {
    let (mut session, _, _) = handed(ALL[0]);
    assert_eq!(session.process_record(ContentType::Handshake, &[24, 0, 0, 1, 1]), Ok(Processed::Quiet));
    assert_eq!(sequence(&session.renewed(Direction::Receive).unwrap()), 0);
    assert!(session.renewed(Direction::Receive).is_none());
    assert!(session.renewed(Direction::Send).is_none(), "our own key changes with our own message");
    let answer = session.kernel_control(1, 0).unwrap().unwrap();
    assert_eq!((answer.kind, answer.body()), (ContentType::Handshake, &[24, 0, 0, 1, 0][..]));
    assert_eq!(sequence(&session.renewed(Direction::Send).unwrap()), 0);
    assert_eq!(session.layout(), Layout::Kernel);
    assert_eq!(session.kernel_control(1, 0), Ok(None));
}

#[test]
fn a_key_of_the_kernel_is_changed_before_its_limit_and_records_that_it_cut_count_twice() {
    let (mut session, _, _) = handed(ALL[0]);
    let limit = confidentiality_limit(ALL[0]);
    assert_eq!(session.kernel_control(1, limit / 8), Ok(None));
    assert!(session.kernel_control(1, limit / 2).unwrap().is_some());
    assert!(session.renewed(Direction::Send).is_some());
    // TLS 1.2 has no other key to go on with.
    let (mut session, _, _) = handed(ALL[3]);
    assert_eq!(session.kernel_control(1, limit), Err(Exhausted));
}

#[test]
fn records_of_other_types_mean_what_they_mean_here() {
    let (mut session, _, _) = handed(ALL[0]);
    assert_eq!(session.process_record(ContentType::ApplicationData, b"data"), Ok(Processed::Data));
    let fatal = session.process_record(ContentType::Alert, &[2, 40]);
    assert_eq!(fatal, Err(Error::Alert(AlertDescription::HandshakeFailure)));
    for (kind, body) in [
        (ContentType::Handshake, &[][..]),
        (ContentType::ChangeCipherSpec, &[1]),
        (ContentType::Handshake, &[1, 0, 0, 0]),
    ] {
        let (mut session, _, _) = handed(ALL[0]);
        assert_eq!(
            session.process_record(kind, body),
            Err(Error::Fault(Fault::UnexpectedMessage)),
            "{kind:?} {body:?}"
        );
    }
    let (mut session, _, _) = handed(ALL[0]);
    assert_eq!(session.process_record(ContentType::Handshake, &[24, 0]), Ok(Processed::Quiet));
    assert_eq!(session.process_record(ContentType::ApplicationData, b"x"), Err(Error::Fault(Fault::UnexpectedMessage)));
    let (mut session, _, _) = handed(ALL[0]);
    assert_eq!(session.process_record(ContentType::Alert, &[1, 0]), Ok(Processed::Closed));
    let close = session.kernel_alert(AlertDescription::CloseNotify).unwrap();
    assert_eq!((close.kind, close.body()), (ContentType::Alert, &[1, 0][..]));
}

#[test]
fn tickets_that_the_kernel_opened_reach_the_store() {
    let (mut session, mut server, mut down, tickets) = pair_for(Some(&Offers::everything()), ALL[0]);
    session.handed_over(Direction::Receive, true);
    // The kernel's part: opening them, and giving them in pieces if it likes.
    let mut opener = std::mem::replace(
        &mut session.opener,
        Opener::new(true, &server.kernel.update_tx_secret().unwrap().1, 0).unwrap(),
    );
    let mut rest = &mut down[..];
    while let Ok(Frame::Whole(wire)) = opener.frame(rest) {
        let (record, after) = rest.split_at_mut(wire);
        let (kind, plain) = opener.open(record).unwrap();
        let (one, two) = record[plain].split_at(7);
        assert_eq!(session.process_record(kind, one), Ok(Processed::Quiet));
        assert_eq!(session.process_record(kind, two), Ok(Processed::Quiet));
        rest = after;
    }
    assert_eq!(tickets.0.load(Ordering::Relaxed), 2);
}
