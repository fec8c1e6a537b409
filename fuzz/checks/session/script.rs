//! Any bytes as a conversation: what is mostly well formed comes further than noise does.

/// Who says something.
pub enum Line {
    /// A record of this type.
    Server(u8, Vec<u8>),
    /// What is owed, then data.
    Client,
}

/// A conversation ends after so many lines: more than are borne without data, twice.
const MOST: usize = 100;

pub fn lines(bytes: &[u8]) -> Vec<Line> {
    let (mut script, mut lines) = (Script(bytes), Vec::new());
    while !script.0.is_empty() && lines.len() < MOST {
        match script.byte() % 8 {
            0 => lines.push(Line::Client),
            1 => lines.push(Line::Server(23, script.bytes())),
            2 => lines.push(Line::Server(21, vec![script.byte() % 4, script.byte()])),
            3 => {
                let (times, asks) = (script.byte() % 40, script.byte() % 2);
                lines.extend((0..times).map(|_| Line::Server(22, vec![24, 0, 0, 1, asks])));
            }
            4 => {
                let kind = [0, 20, 21, 22, 22, 23, 24, script.byte()][usize::from(script.byte() % 8)];
                lines.push(Line::Server(kind, script.bytes()));
            }
            // Data, its type and padding: records of TLS 1.3 only.
            5 => {
                let padding = vec![0; usize::from(script.byte())];
                lines.push(Line::Server(0, [&script.bytes()[..], &[21 + script.byte() % 3], &padding].concat()));
            }
            _ => script.messages(&mut lines),
        }
    }
    lines.truncate(MOST);
    lines
}

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    /// Zero when there are no more.
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes.to_vec()
    }

    /// Some handshake messages, cut into records without regard to where they end.
    fn messages(&mut self, lines: &mut Vec<Line>) {
        let mut all = Vec::new();
        for _ in 0..=self.byte() % 3 {
            match self.byte() % 6 {
                0..=2 => {
                    let ticket = ticket(&self.bytes(), &self.bytes());
                    all.extend(message(4, &ticket));
                }
                3 => all.extend(message(24, &[self.byte() % 3])),
                4 => all.extend(message(0, &[])),
                _ => {
                    let kind = self.byte();
                    all.extend(message(kind, &self.bytes()));
                }
            }
        }
        // What comes next may come amid a message.
        if self.byte().is_multiple_of(4) {
            all.truncate(usize::from(self.byte()));
        }
        let piece = usize::from(self.byte()) + 1;
        lines.extend(all.chunks(piece).map(|piece| Line::Server(22, piece.to_vec())));
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (body.len() as u32).to_be_bytes();
    [&[kind, a, b, c], body].concat()
}

/// Good for a day, with a nonce of one byte; one extension with that value, if there is one.
fn ticket(ticket: &[u8], value: &[u8]) -> Vec<u8> {
    let vector = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let extensions = if value.is_empty() { Vec::new() } else { [&[0, 42][..], &vector(value)].concat() };
    [&[0, 1, 81, 128, 9, 9, 9, 9, 1, 7][..], &vector(ticket), &vector(&extensions)].concat()
}
