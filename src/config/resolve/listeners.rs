//! Listeners and the admin address.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;

use crate::config::file::{self, File};
use crate::config::formats::Listen;
use crate::config::problems::{Problem, quote};
use crate::config::read::{Given, OneOrMany};
use crate::config::resolve::access::Entrance;
use crate::config::resolve::{Resolver, routes, tcp};
use crate::config::source::Span;
use crate::config::values::{Admin, AdminRole, ListenAddress, Listener, Name};

pub(super) fn admins(given: &Given<OneOrMany<file::Admin>>, resolver: &mut Resolver<'_>) -> Vec<Admin> {
    sections(given).filter_map(|section| admin(section, resolver)).collect()
}

/// The tables that could be read.
fn sections(given: &Given<OneOrMany<file::Admin>>) -> impl Iterator<Item = &file::Admin> {
    given.value().into_iter().flat_map(|admins| &admins.0).filter_map(Given::value)
}

fn admin(section: &file::Admin, resolver: &mut Resolver<'_>) -> Option<Admin> {
    let file::Admin { at, listen, mode, allow, allow_users, role, token_file } = section;
    let role = role.or(AdminRole::Control);
    let gives = match role {
        AdminRole::Read => "every client of this address can read metrics and the status",
        AdminRole::Control => "every client of this address can read the status, reload and drain",
    };
    let entrance = Entrance { gives, at, listen, mode, allow, allow_users };
    let (listen, access) = entrance.resolve(resolver, "listen = \"127.0.0.1:9465\"")?;
    let token_file = token_file.value().map(|path| path.within(resolver.folder));
    Some(Admin { listen, access, role, token_file })
}

pub(super) fn listeners(file: &File, resolver: &mut Resolver<'_>) -> Vec<Listener> {
    refuse_nothing_to_do(&file.listeners, resolver);
    let sections: Vec<_> = file.listeners.value().into_iter().flatten().filter_map(Given::value).collect();
    refuse_shared_addresses(file, &sections, resolver);
    refuse_shared_names(&sections, resolver);
    sections.into_iter().filter_map(|section| listener(section, file, resolver)).collect()
}

fn refuse_nothing_to_do(list: &Given<file::List<file::Listener>>, resolver: &mut Resolver<'_>) {
    let title = "there is no listener, so nothing would be done";
    let repair = "add\n[[listeners]]\nlisten = \"127.0.0.1:8080\"\nupstream = \"NAME\"";
    match list {
        Given::Absent => resolver.problems.push(Problem::of_file(title, repair)),
        Given::Value(span, list) if list.is_empty() => resolver.report(span, title, "nothing in it", repair),
        _ => {}
    }
}

fn listener(section: &file::Listener, file: &File, resolver: &mut Resolver<'_>) -> Option<Listener> {
    let file::Listener { at, listen, mode, allow, allow_users, .. } = section;
    let gives = match section.routes.is_absent() {
        true => "every client of this address uses the identity of the upstream",
        false => "every client of this address reaches the upstreams",
    };
    let entrance = Entrance { gives, at, listen, mode, allow, allow_users };
    let entrance = entrance.resolve(resolver, "listen = \"127.0.0.1:8080\"");
    let destination = routes::destination(section, file, resolver);
    let (listen, access) = entrance?;
    tcp::refuse_on_unix(section, &listen, resolver);
    Some(Listener {
        name: section.name.value().cloned().unwrap_or_else(|| default_name(&listen, section)),
        listen,
        destination: destination?,
        access,
        max_connections: section.max_connections.value().map(|count| count.0),
        tcp: tcp::tcp(&section.tcp.or_empty(), resolver),
    })
}

/// The address as it was typed: a relative path stays relative, so that moving the folder renames nothing.
fn default_name(listen: &ListenAddress, section: &file::Listener) -> Name {
    match section.listen.value() {
        Some(Listen::Unix(location)) => {
            let path = location.within(Path::new(""));
            Name::new(format!("unix:{}", path.display()))
        }
        _ => Name::new(listen.to_string()),
    }
}

/// Every address that was typed, with the folder put before relative paths.
fn addresses<'a>(
    file: &'a File,
    sections: &[&'a file::Listener],
    resolver: &Resolver<'_>,
) -> Vec<(&'a Span, ListenAddress)> {
    let typed =
        self::sections(&file.admin).map(|admin| &admin.listen).chain(sections.iter().map(|section| &section.listen));
    let folder = resolver.folder;
    let mut addresses: Vec<_> = typed
        .filter_map(Given::located)
        .map(|(span, listen)| match listen {
            Listen::Tcp(address) => (span, ListenAddress::Tcp(*address)),
            Listen::Unix(path) => (span, ListenAddress::Unix { path: path.within(folder), mode: 0 }),
        })
        .collect();
    addresses.sort_by_key(|(span, _)| span.start);
    addresses
}

fn refuse_shared_addresses(file: &File, sections: &[&file::Listener], resolver: &mut Resolver<'_>) {
    let addresses = addresses(file, sections, resolver);
    // Only those of one port or one path can collide: a file may have ten thousand listeners.
    let mut seen: HashMap<(u16, Option<&Path>), Vec<&ListenAddress>> = HashMap::new();
    for (span, address) in &addresses {
        let alike = seen.entry(alike(address)).or_default();
        if let Some(earlier) = alike.iter().find(|earlier| collide(earlier, address)) {
            let title = match *earlier == address {
                true => format!("{address} is listened on twice"),
                false => format!("{address} and {earlier} cannot both be listened on"),
            };
            resolver.report(span, title, "taken above", "choose another port or path for one of the two");
        }
        alike.push(address);
    }
}

/// Addresses that differ in this cannot collide.
fn alike(address: &ListenAddress) -> (u16, Option<&Path>) {
    match address {
        ListenAddress::Tcp(address) => (address.port(), None),
        ListenAddress::Unix { path, .. } => (0, Some(path)),
    }
}

fn collide(one: &ListenAddress, other: &ListenAddress) -> bool {
    match (one, other) {
        (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) => collide_tcp(one, other),
        _ => one == other,
    }
}

fn collide_tcp(one: &SocketAddr, other: &SocketAddr) -> bool {
    // Port 0 asks the system for a free port each time.
    let port = one.port() == other.port() && one.port() != 0;
    let everything = one.ip().is_unspecified() || other.ip().is_unspecified();
    port && (one.ip() == other.ip() || everything && one.is_ipv4() == other.is_ipv4())
}

fn refuse_shared_names(sections: &[&file::Listener], resolver: &mut Resolver<'_>) {
    let named: Vec<_> = sections.iter().filter_map(|section| section.name.located()).collect();
    let mut seen = HashSet::new();
    for (span, name) in named {
        if !seen.insert(name) {
            let title = format!("two listeners have the name {}", quote(name.as_str()));
            resolver.report(
                span,
                title,
                "taken above",
                "choose another name, or leave it out: the address is the default",
            );
        }
    }
    let any_port = sections.iter().filter(|section| section.name.is_absent()).filter_map(|section| {
        section.listen.located().filter(|(_, listen)| matches!(listen, Listen::Tcp(a) if a.port() == 0))
    });
    for (span, _) in any_port.skip(1) {
        resolver.report(
            span,
            "listeners on port 0 need names: their addresses do not tell them apart",
            "no name",
            "add `name = \"NAME\"`",
        );
    }
}
