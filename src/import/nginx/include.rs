//! A configuration of nginx with everything it includes, as one tree.

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use crate::config::{Problem, Source};
use crate::import::nginx::parse::{self, Directive};

/// Where the files are. Tests have them in memory.
pub trait Files {
    /// The text of a file.
    ///
    /// # Errors
    /// It cannot be read, or is no UTF-8.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// The names in a folder, in any order.
    ///
    /// # Errors
    /// It cannot be listed.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
}

/// The files of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

/// The largest file that is read; generated maps of a hundred thousand names have a few megabytes.
const LARGEST: u64 = 16 << 20;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<String> {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it is larger than {} MiB", LARGEST >> 20),
            ));
        }
        String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let names = fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.collect())
    }
}

/// Everything that was read.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    /// The files, the first is the one that was asked for.
    pub sources: Vec<Source>,
    /// All directives; what a file includes follows the `include`, which stays.
    pub tree: Vec<Directive>,
    /// How many directives there are.
    pub count: usize,
    /// By the number of an `include`: how many files it brought, or why it brought none.
    pub includes: Vec<(usize, Result<usize, String>)>,
    /// By the number of a file: it was a pasted difference.
    pub differences: Vec<usize>,
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file that was asked for.
    #[error("{} cannot be read: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// As the system says.
        error: io::Error,
    },
    /// A file is no configuration of nginx.
    #[error("{} is no configuration that nginx would read", .0.origin())]
    Syntax(Box<Source>, Box<Problem>),
}

/// Files of one configuration: more are a loop, or not meant to be read by people.
const MOST_FILES: usize = 1000;
/// Includes inside includes; nginx itself stops when descriptors are out.
const DEEPEST: usize = 16;

/// Reads a file and what it includes. Patterns are relative to the folder of the file, as in nginx.
///
/// # Errors
/// The file cannot be read, or one of the files is no configuration; an include that is missing is told in
/// [`Whole::includes`].
pub fn read(files: &dyn Files, path: &Path) -> Result<Whole, Error> {
    let text = files.read(path).map_err(|error| Error::Unreadable { path: path.to_path_buf(), error })?;
    let folder = path.parent().unwrap_or_else(|| Path::new("")).to_path_buf();
    let mut reading = Reading { files, folder, whole: Whole::default() };
    reading.whole.tree = reading.file(path, &text, 0)?;
    Ok(reading.whole)
}

struct Reading<'a> {
    files: &'a dyn Files,
    folder: PathBuf,
    whole: Whole,
}

impl Reading<'_> {
    fn file(&mut self, path: &Path, text: &str, depth: usize) -> Result<Vec<Directive>, Error> {
        let source = Source::new(&path.display().to_string(), text);
        let number = self.whole.sources.len();
        let changed = parse::apply_difference(text);
        if changed.is_some() {
            self.whole.differences.push(number);
        }
        let parsed = parse::parse(changed.as_deref().unwrap_or(text), number, &mut self.whole.count);
        let tree = parsed.map_err(|error| syntax(&source, &error))?;
        self.whole.sources.push(source);
        self.expand(tree, depth)
    }

    fn expand(&mut self, tree: Vec<Directive>, depth: usize) -> Result<Vec<Directive>, Error> {
        let mut expanded = Vec::with_capacity(tree.len());
        for mut directive in tree {
            directive.block = directive.block.take().map(|block| self.expand(block, depth)).transpose()?;
            let include = directive.name.text == "include" && directive.block.is_none();
            let (id, pattern) = (directive.id, directive.argument(0).to_owned());
            expanded.push(directive);
            if include {
                self.include(id, &pattern, depth, &mut expanded)?;
            }
        }
        Ok(expanded)
    }

    fn include(&mut self, id: usize, pattern: &str, depth: usize, into: &mut Vec<Directive>) -> Result<(), Error> {
        let paths = match depth < DEEPEST {
            true => self.matching(pattern),
            false => Err(format!("includes nest deeper than {DEEPEST}: do they include each other?")),
        };
        let mut brought = 0;
        let mut wrong = paths.as_ref().err().cloned();
        for path in paths.unwrap_or_default() {
            if self.whole.sources.len() >= MOST_FILES {
                wrong = Some(format!("there are more than {MOST_FILES} files"));
                break;
            }
            match self.files.read(&path) {
                Ok(text) => {
                    into.extend(self.file(&path, &text, depth + 1)?);
                    brought += 1;
                }
                Err(error) => wrong = Some(format!("{} cannot be read: {error}", path.display())),
            }
        }
        self.whole.includes.push((id, wrong.map_or(Ok(brought), Err)));
        Ok(())
    }

    /// The files that a pattern means, in order. A pattern with wildcards may mean none.
    fn matching(&self, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let path = self.folder.join(pattern);
        if !pattern.contains(['*', '?', '[']) {
            return Ok(vec![path]);
        }
        let mut found = vec![PathBuf::new()];
        for component in path.components() {
            let Component::Normal(name) = component else {
                found.iter_mut().for_each(|path| path.push(component));
                continue;
            };
            let name = name.to_str().ok_or("the pattern is no UTF-8")?;
            if !name.contains(['*', '?', '[']) {
                found.iter_mut().for_each(|path| path.push(name));
                continue;
            }
            found = found.iter().flat_map(|folder| self.names(folder, name)).take(MOST_FILES).collect();
        }
        Ok(found)
    }

    /// The entries of a folder that fit, in order; none if the folder is not there.
    fn names(&self, folder: &Path, pattern: &str) -> Vec<PathBuf> {
        let letters: Vec<char> = pattern.chars().collect();
        let mut names = self.files.list(folder).unwrap_or_default();
        names.retain(|name| fits(&letters, &name.chars().collect::<Vec<_>>()));
        names.sort();
        names.into_iter().map(|name| folder.join(name)).collect()
    }
}

fn syntax(source: &Source, error: &parse::Error) -> Error {
    let repair = "`nginx -t` names the same place; mend it there first";
    let problem = Problem::new(error.span().clone(), error.to_string(), "here", repair);
    Error::Syntax(Box::new(source.clone()), Box::new(problem))
}

/// Does a name fit a pattern of `*`, `?` and `[a-z]`? A `*` does not take a leading dot, as in glob(3).
fn fits(pattern: &[char], name: &[char]) -> bool {
    if name.first() == Some(&'.') && pattern.first() != Some(&'.') {
        return false;
    }
    // Where to go on if the last `*` has to take one more: no recursion, so that no pattern takes exponential time.
    let (mut at, mut of, mut star) = (0, 0, None);
    while of < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at + 1, of));
                at += 1;
                continue;
            }
            Some('?') => at += 1,
            Some('[') => match class(&pattern[at..], name[of]) {
                Some((length, true)) => at += length,
                _ if star.is_some() => {
                    (at, of) = again(&mut star);
                    continue;
                }
                _ => return false,
            },
            Some(letter) if *letter == name[of] => at += 1,
            _ if star.is_some() => {
                (at, of) = again(&mut star);
                continue;
            }
            _ => return false,
        }
        of += 1;
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}

fn again(star: &mut Option<(usize, usize)>) -> (usize, usize) {
    let (at, of) = star.expect("only called after a star");
    *star = Some((at, of + 1));
    (at, of + 1)
}

/// Length of a class in brackets, and whether it has the letter; `None`: it is none.
fn class(pattern: &[char], letter: char) -> Option<(usize, bool)> {
    let end = 2 + pattern.get(2..)?.iter().position(|other| *other == ']')?;
    let inner = &pattern[1..end];
    let (negated, inner) = match inner.split_first() {
        Some(('!' | '^', rest)) => (true, rest),
        _ => (false, inner),
    };
    let range = inner.windows(3).any(|part| part[1] == '-' && (part[0]..=part[2]).contains(&letter));
    Some((end + 1, (range || inner.contains(&letter)) != negated))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        fits(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>())
    }

    #[test]
    fn patterns_fit_as_in_the_shell() {
        for (pattern, name) in
            [("*.conf", "a.conf"), ("?-*", "1-x"), ("[a-c]*", "b"), ("*", ""), ("a*b*c", "axbybzc"), ("*[!0]", "a1")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*.conf", "a.conf~"), ("*", ".hidden"), ("[a-c]*", "d"), ("a*b", "a"), ("[", "[")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
