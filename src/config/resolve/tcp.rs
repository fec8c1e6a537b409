//! Options of TCP connections, as the kernel takes them.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::file;
use crate::config::formats::Limit;
use crate::config::read::Given;
use crate::config::resolve::Resolver;
use crate::config::values::{ListenAddress, Tcp};

/// `MAX_TCP_KEEPIDLE` of Linux is 32767 s; rounded down to whole hours.
const KEEPALIVE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(9 * 3600);
/// The kernel takes milliseconds in a signed number of 32 bits, some 24 days; zero would mean its default.
const USER_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 86_400);

pub(super) fn tcp(section: &file::Tcp, resolver: &mut Resolver<'_>) -> Tcp {
    refuse_outside(&section.keepalive, &KEEPALIVE, "`keepalive` is from \"1s\" to \"9h\"", resolver);
    refuse_outside(&section.user_timeout, &USER_TIMEOUT, "`user_timeout` is from \"1ms\" to \"24d\"", resolver);
    section.settings()
}

fn refuse_outside(given: &Given<Limit>, range: &RangeInclusive<Duration>, title: &str, resolver: &mut Resolver<'_>) {
    if let Some((span, Limit(Some(duration)))) = given.located()
        && !range.contains(duration)
    {
        resolver.report(span, title, "not taken by the kernel", "write a duration of that range, or \"never\"");
    }
}

pub(super) fn refuse_on_unix(section: &file::Listener, listen: &ListenAddress, resolver: &mut Resolver<'_>) {
    if let (Some(span), ListenAddress::Unix { .. }) = (section.tcp.span(), listen) {
        resolver.report(span, "`tcp` is for listeners on TCP", "this is a Unix socket", "remove `tcp`");
    }
}
