//! `allow` and `deny` to the networks that may come.
//!
//! nginx takes the first rule that fits and lets in a client that none fits; egret has one list of clients that may connect. So the
//! rules are worked off over the set of all addresses, which gives the same answer for each of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) allow: bool,
    /// `None`: all.
    pub(crate) network: Option<IpNet>,
}

impl Rule {
    /// `None` if it is neither a network nor `all` (`unix:`, say).
    pub(crate) fn read(allow: bool, text: &str) -> Option<Self> {
        if text == "all" {
            return Some(Self { allow, network: None });
        }
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
        Some(Self { allow, network: Some(network.trunc()) })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AllowedClients {
    Everyone,
    Networks(Vec<IpNet>),
}

/// Access by these rules, among clients of the listener's own address family.
pub(crate) fn allowed_clients(rules: &[Rule], v6: bool) -> AllowedClients {
    let everything = match v6 {
        true => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
        false => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    };
    let mut undecided = vec![everything];
    let mut allowed = Vec::new();
    for rule in rules {
        let network = rule.network.unwrap_or(everything);
        if rule.allow {
            allowed.extend(undecided.iter().filter_map(|part| common(part, &network)));
        }
        undecided = undecided.iter().flat_map(|part| without(part, &network)).collect();
    }
    allowed.extend(undecided);
    let allowed = IpNet::aggregate(&allowed);
    if allowed == [everything] { AllowedClients::Everyone } else { AllowedClients::Networks(allowed) }
}

fn common(one: &IpNet, other: &IpNet) -> Option<IpNet> {
    match (one.contains(other), other.contains(one)) {
        (true, _) => Some(*other),
        (_, true) => Some(*one),
        _ => None,
    }
}

/// A network without another: the siblings on the path down to it.
fn without(network: &IpNet, hole: &IpNet) -> Vec<IpNet> {
    if hole.contains(network) {
        return Vec::new();
    }
    if !network.contains(hole) {
        return vec![*network];
    }
    let mut rest = Vec::new();
    let mut around = *network;
    while around != *hole {
        let Ok(halves) = around.subnets(around.prefix_len() + 1) else { break };
        for half in halves {
            if half.contains(hole) {
                around = half;
            } else {
                rest.push(half);
            }
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(rules: &[&str]) -> String {
        let rules: Vec<_> =
            rules.iter().map(|rule| Rule::read(rule.starts_with('+'), &rule[1..]).expect("it is a rule")).collect();
        match allowed_clients(&rules, false) {
            AllowedClients::Everyone => "everyone".to_owned(),
            AllowedClients::Networks(networks) => {
                networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        assert_eq!(networks(&[]), "everyone");
        assert_eq!(networks(&["+10.0.0.0/8", "-all"]), "10.0.0.0/8");
        assert_eq!(networks(&["-10.0.0.1", "+10.0.0.0/30", "-all"]), "10.0.0.0/32 10.0.0.2/31");
        assert_eq!(networks(&["-all", "+10.0.0.0/8"]), "");
        assert_eq!(networks(&["-128.0.0.0/1"]), "0.0.0.0/1");
        assert_eq!(networks(&["+2001:db8::/32", "-all"]), "");
        assert_eq!(networks(&["+all"]), "everyone");
    }
}
