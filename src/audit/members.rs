//! Members that a later version adds to an object, and this one does not know.
//!
//! A record or the header of a commit may gain optional members. A reader of before
//! accepts them, keeps the line as it is stored, and hashes those bytes. All that it does
//! know has the one form that it would write itself:
//!
//! * Unknown members stand behind the known ones of their object; in a record, before
//!   `chain`, which stays last.
//! * A name is 1 to 64 of `a-z 0-9 _ -`, and stands in its object once.
//! * A value is a string of printable ASCII without `"` and `\`, a whole number from 0 to
//!   2^64-1 without leading zeros, `true`, `false`, or an array or object of these. `null`
//!   is not a value: what does not apply is left out.
//! * There is no white space, and nothing is nested deeper than 16 levels.
//!
//! So each line has one spelling for a reader of any version. An object that names its kind
//! by its one member (an event, a key, an origin) gains none, nor do a tree's head, a link and
//! the end of a chain: their types refuse unknown members.
//!
//! Separate from the commit, because views, proofs and tools read single lines. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Record;
use super::commit::Header;

/// How deep a line may be nested where it has unknown members.
const MAX_DEPTH: usize = 16;

/// The longest name of an unknown member, in bytes.
const MAX_NAME: usize = 64;

impl Record {
    /// Reads a record's line, without its line feed: as it is written, or with members that
    /// this version does not know. `None` if it is not a record's.
    #[must_use]
    pub fn from_line(line: &[u8]) -> Option<Self> {
        decode_record(line, &mut Vec::new())
    }

    /// Its line as it is stored, without the line feed.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        match &self.stored {
            Some(stored) => stored.to_vec(),
            None => serde_json::to_vec(self).expect("records have string keys only"),
        }
    }
}

/// A record, with the line where encoding it again would lose some of it.
pub(super) fn decode_record(line: &[u8], again: &mut Vec<u8>) -> Option<Record> {
    let (mut record, exact) = decode::<Record>(line, again, "chain")?;
    record.stored = (!exact).then(|| line.into());
    Some(record)
}

pub(super) fn decode_header(line: &[u8]) -> Option<Header> {
    decode(line, &mut Vec::new(), "").map(|(header, _)| header)
}

/// A value whose encoding is `line` but for unknown members, and whether there are none.
/// `last` is the member that stays last in the outermost object.
fn decode<'a, T: Serialize + Deserialize<'a>>(
    line: &'a [u8],
    again: &mut Vec<u8>,
    last: &str,
) -> Option<(T, bool)> {
    let value = serde_json::from_slice(line).ok()?;
    again.clear();
    serde_json::to_writer(&mut *again, &value).ok()?;
    if again == line {
        return Some((value, true));
    }
    let mut pair = Pair { known: Text(again), stored: Text(line), last: last.as_bytes() };
    pair.value(0)?;
    (pair.known.0.is_empty() && pair.stored.0.is_empty()).then_some((value, false))
}

/// What this version writes, and what is stored, read side by side.
struct Pair<'a> {
    known: Text<'a>,
    stored: Text<'a>,
    last: &'a [u8],
}

impl<'a> Pair<'a> {
    fn both(&mut self, byte: u8) -> Option<()> {
        self.known.take(byte)?;
        self.stored.take(byte)
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.known.0.first()? {
            b'{' => self.object(depth),
            b'[' => {
                self.both(b'[')?;
                while !self.known.is_at(b']') {
                    self.value(depth + 1)?;
                    if !self.known.is_at(b']') {
                        self.both(b',')?;
                    }
                }
                self.both(b']')
            }
            _ => {
                let scalar = self.known.scalar()?;
                self.stored.0 = self.stored.0.strip_prefix(scalar)?;
                Some(())
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        let mut names = BTreeSet::new();
        self.both(b'{')?;
        while !self.known.is_at(b'}') {
            if !names.is_empty() {
                self.known.take(b',')?;
            }
            let name = self.known.name()?;
            let is_last = depth == 0 && name == self.last;
            if is_last {
                self.unknown(&mut names, Some(name), depth)?;
            }
            self.stored.comma(&names)?;
            (self.stored.name()? == name).then_some(())?;
            names.insert(name);
            self.both(b':')?;
            self.value(depth + 1)?;
            if is_last {
                return self.both(b'}');
            }
        }
        self.unknown(&mut names, None, depth)?;
        self.both(b'}')
    }

    /// Passes over unknown members, up to the end of the object or to the member `until`.
    fn unknown(&mut self, names: &mut BTreeSet<&'a [u8]>, until: Option<&[u8]>, depth: usize) -> Option<()> {
        while !self.stored.is_at(b'}') {
            let before = self.stored;
            self.stored.comma(names)?;
            let name = self.stored.name()?;
            if Some(name) == until {
                self.stored = before;
                break;
            }
            self.stored.member(name, names, depth)?;
        }
        Some(())
    }
}

/// The rest of a line.
#[derive(Clone, Copy)]
struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    fn is_at(&self, byte: u8) -> bool {
        self.0.first() == Some(&byte)
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    /// What stands between the members that were read and the next.
    fn comma(&mut self, names: &BTreeSet<&[u8]>) -> Option<()> {
        if names.is_empty() { Some(()) } else { self.take(b',') }
    }

    fn cut(&mut self, at: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(at)?;
        self.0 = rest;
        Some(front)
    }

    /// A string without escapes: what is between its quotes.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let length = self.0.iter().position(|byte| *byte == b'"')?;
        let text = self.cut(length)?;
        self.take(b'"')?;
        text.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'\\').then_some(text)
    }

    fn name(&mut self) -> Option<&'a [u8]> {
        let is_plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        let name = self.string()?;
        ((1..=MAX_NAME).contains(&name.len()) && name.iter().all(is_plain)).then_some(name)
    }

    /// A string, a number or a word, in the one form that is written.
    fn scalar(&mut self) -> Option<&'a [u8]> {
        let (mut quoted, mut escaped) = (false, false);
        let ends = |byte: &u8| {
            let end = !quoted && matches!(byte, b',' | b']' | b'}');
            quoted ^= *byte == b'"' && !escaped;
            escaped = quoted && *byte == b'\\' && !escaped;
            end
        };
        let length = self.0.iter().position(ends).unwrap_or(self.0.len());
        self.cut(length).filter(|scalar| !scalar.is_empty())
    }

    /// The rest of an unknown member, whose name was read.
    fn member(&mut self, name: &'a [u8], names: &mut BTreeSet<&'a [u8]>, depth: usize) -> Option<()> {
        names.insert(name).then_some(())?;
        self.take(b':')?;
        self.unknown_value(depth + 1)
    }

    fn unknown_value(&mut self, depth: usize) -> Option<()> {
        (depth < MAX_DEPTH).then_some(())?;
        match self.0.first()? {
            b'"' => self.string().map(drop),
            b'{' => {
                let mut names = BTreeSet::new();
                self.take(b'{')?;
                while !self.is_at(b'}') {
                    self.comma(&names)?;
                    let name = self.name()?;
                    self.member(name, &mut names, depth)?;
                }
                self.take(b'}')
            }
            b'[' => {
                self.take(b'[')?;
                let mut first = true;
                while !self.is_at(b']') {
                    if !std::mem::take(&mut first) {
                        self.take(b',')?;
                    }
                    self.unknown_value(depth + 1)?;
                }
                self.take(b']')
            }
            _ => match self.scalar()? {
                b"true" | b"false" => Some(()),
                number => {
                    let digits = number.iter().all(u8::is_ascii_digit);
                    let one_form = digits && (number[0] != b'0' || number.len() == 1);
                    let value = std::str::from_utf8(number).ok()?.parse::<u64>().ok();
                    value.filter(|_| one_form).map(drop)
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::commit::Line;
    use crate::audit::commit::tests::{line_of, writer};
    use crate::audit::operation::tests::{intent, outcome};
    use crate::audit::{Event, Link};
    use crate::id::RequestId;
    use crate::merkle::Hash;
    use serde_json::json;

    /// A record's line with and without a link, and the same texts as templates.
    fn lines() -> [String; 3] {
        let request = RequestId::from_bytes([4; 16]);
        let customer = crate::id::CustomerId::from_bytes([3; 16]);
        let key = json!({ "day": { "day": "2028-05-22" } });
        let fields = json!({ "customer": customer, "key": key });
        let mut linked = intent(request, &fields);
        linked.chain = Some(Link { number: 1, previous: Hash::ZERO });
        let alone = Line::new(&outcome(request, &json!({})));
        let alive = line_of(1, &writer(2), Event::Alive);
        let text = |line: Line| {
            let mut text = Vec::new();
            line.write(None, &mut text);
            String::from_utf8(text).unwrap().trim_end().to_owned()
        };
        [String::from_utf8(linked.to_line()).unwrap(), text(alone), text(alive)]
    }

    fn reads(line: &str) -> Option<Record> {
        let record = Record::from_line(line.as_bytes())?;
        assert_eq!(record.to_line(), line.as_bytes());
        Some(record)
    }

    #[test]
    fn what_this_version_writes_has_no_copy() {
        for line in lines() {
            assert!(reads(&line).unwrap().stored.is_none());
        }
    }

    /// In front of `chain` and at the end of each object that can gain members.
    #[test]
    fn unknown_members_are_kept_where_they_may_stand() {
        let [linked, alone, alive] = lines();
        for member in [
            r#""later":"text""#,
            r#""later":0"#,
            r#""later":18446744073709551615"#,
            r#""later":true,"more-2":false"#,
            r#""later":[1,"b",[],{}]"#,
            r#""later":{"a":{"b":[{"a":1}]},"b":""}"#,
        ] {
            for line in [
                linked.replace(r#","chain":"#, &format!(r#",{member},"chain":"#)),
                linked.replace(r#"}},"chain":"#, &format!(r#",{member}}}}},"chain":"#)),
                linked.replace(r#""2028-05-22"}"#, &format!(r#""2028-05-22",{member}}}"#)),
                alone.replace(r#""result":"ok"}"#, &format!(r#""result":"ok",{member}}}"#)),
                alone.strip_suffix('}').unwrap().to_owned() + "," + member + "}",
                alive.strip_suffix('}').unwrap().to_owned() + "," + member + "}",
            ] {
                let record = reads(&line).unwrap_or_else(|| panic!("{line}"));
                assert_eq!(record.stored.as_deref(), Some(line.as_bytes()));
            }
        }
    }

    #[test]
    fn nothing_else_is_tolerated() {
        let [linked, alone, alive] = lines();
        let end = |line: &str, member: &str| line.strip_suffix('}').unwrap().to_owned() + "," + member + "}";
        let deep = |levels: usize| format!(r#""later":{}{}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(reads(&end(&alive, &deep(MAX_DEPTH - 1))).is_some());
        for refused in [
            // A value with a second spelling, or none at all.
            end(&alive, r#""later":null"#),
            end(&alive, r#""later":01"#),
            end(&alive, r#""later":-1"#),
            end(&alive, r#""later":1.0"#),
            end(&alive, r#""later":1e3"#),
            end(&alive, r#""later":18446744073709551616"#),
            end(&alive, r#""later":"a\u0062""#),
            end(&alive, r#""later":"\"""#),
            end(&alive, r#""later":"ü""#),
            end(&alive, r#""later": 1"#),
            end(&alive, r#" "later":1"#),
            end(&alive, r#""later":[1, 2]"#),
            end(&alive, r#""later":[1,]"#),
            end(&alive, r#""later":{"a":1,"a":2}"#),
            end(&alive, &deep(MAX_DEPTH)),
            // A name with a second spelling, twice, too long or none.
            end(&alive, r#""later":1,"later":1"#),
            end(&alive, r#""l\u0061ter":1"#),
            end(&alive, r#""Later":1"#),
            end(&alive, r#""":1"#),
            end(&alive, &format!(r#""{}":1"#, "a".repeat(MAX_NAME + 1))),
            // Known ones twice, empty, or in another order.
            end(&alive, r#""event":"alive""#),
            end(&alive, r#""chain":null"#),
            alone.replace(r#""result":"ok""#, r#""result":"ok","bytes":null"#),
            alone.replace(r#""result":"ok""#, r#""bytes":1,"result":"ok""#),
            alone.replace(r#""result":"ok""#, r#""result":"ok","key":null,"later":1"#),
            // In another place than behind the known ones.
            format!(r#"{{"later":1,{}"#, &alive[1..]),
            alive.replace(r#","event":"#, r#","later":1,"event":"#),
            end(&linked, r#""later":1"#),
            // In what can gain none.
            linked.replace(r#""chain":{"number":1"#, r#""chain":{"number":1,"later":1"#),
            linked.replace(r#""origin":{"process":4242}"#, r#""origin":{"process":4242,"later":1}"#),
            linked.replace(r#""2028-05-22"}}"#, r#""2028-05-22"},"later":1}"#),
            // Anything behind it.
            alive.clone() + " ",
            alive.clone() + "1",
        ] {
            assert!(![&linked, &alone, &alive].contains(&&refused), "{refused}");
            assert!(reads(&refused).is_none(), "{refused}");
        }
    }
}
