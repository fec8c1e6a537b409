//! Sessions that are cancelled by a connection of its own, which has to reach the same server.

/// How a protocol names a session: the server announces a key, and a client that asks to cancel repeats it.
#[derive(Debug)]
pub(crate) struct Cancellation {
    /// The key of the session that a client's first bytes ask to cancel; `None` if they ask for something else.
    pub(crate) requested: fn(&[u8]) -> Option<&[u8]>,
    /// Reads the key that a server announces.
    pub(crate) announced: fn() -> Box<dyn KeyReader>,
}

/// Sees a server's bytes before the client gets them, until it returns false.
pub(crate) type FirstBytes<'a> = Box<dyn FnMut(&[u8]) -> bool + Send + 'a>;

/// Looks at a server's first bytes, as far as that is needed.
pub trait KeyReader: Send {
    /// Reads the next bytes. After `Key` or `Without` there is nothing more to read.
    fn read(&mut self, bytes: &[u8]) -> Reading;
}

/// What a server's bytes have shown so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It is not known yet.
    More,
    /// Process id and secret, as a client repeats them.
    Key(Box<[u8]>),
    /// The session cannot be cancelled.
    Without,
}
