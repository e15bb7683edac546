//! The tokens of a Rust source, for the tests that read the sources.
//!
//! Comments, strings and items under `#[cfg(test)]` do not count. Code that macros of other
//! crates make is out of sight.
//!
//! Use it with `#[path = "common/tokens.rs"] mod tokens;`.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

/// Drops the items under `#[cfg(test)]` and `#[cfg(all(test, …))]`, and names those that are
/// modules in files of their own.
pub fn without_tests(tokens: Vec<Token>) -> (Vec<Token>, Vec<String>) {
    let spells = |at: usize, words: &[&str]| {
        words.iter().enumerate().all(|(i, word)| tokens.get(at + i).is_some_and(|t| t.is(word)))
    };
    let only_in_tests = |at: usize| {
        spells(at, &["[", "cfg", "(", "test", ")"]) || spells(at, &["[", "cfg", "(", "all", "(", "test", ","])
    };
    let mut kept = Vec::new();
    let mut modules = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].is("#") && spells(at + 1, &["!"]) && only_in_tests(at + 2) {
            break;
        }
        if !(tokens[at].is("#") && only_in_tests(at + 1)) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        while spells(at, &["#", "["]) {
            at = after_brackets(&tokens, at + 1);
        }
        // To the end of the item: its `;`, its body, or the end of what it stands in.
        while at < tokens.len() && !tokens[at].is("}") {
            if tokens[at].is("mod") && spells(at + 2, &[";"]) {
                modules.push(tokens[at + 1].text.clone());
            }
            if tokens[at].is("{") {
                at = after_brackets(&tokens, at);
                break;
            }
            if tokens[at].is("(") || tokens[at].is("[") {
                at = after_brackets(&tokens, at);
                continue;
            }
            at += 1;
            if tokens[at - 1].is(";") {
                break;
            }
        }
    }
    (kept, modules)
}

/// The place after the bracket that closes the one at `at`.
pub fn after_brackets(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            break;
        }
    }
    at
}

/// A name, `::`, or one other character. Comments and literals have none.
#[derive(Clone)]
pub struct Token {
    pub line: usize,
    pub text: String,
}

impl Token {
    pub fn is(&self, text: &str) -> bool {
        self.text == text
    }

    pub fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c == '_' || c.is_alphabetic())
    }
}

pub fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let is = |at: usize, c: char| chars.get(at) == Some(&c);
    let in_name = |at: usize| chars.get(at).is_some_and(|c| *c == '_' || c.is_alphanumeric());
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let start = at;
        let c = chars[at];
        if c == '/' && is(at + 1, '/') {
            while at < chars.len() && !is(at, '\n') {
                at += 1;
            }
        } else if c == '/' && is(at + 1, '*') {
            at = after_block_comment(&chars, at);
        } else if c == '"' {
            at = after_string(&chars, at);
        } else if c == '\'' {
            at = after_quote(&chars, at);
        } else if in_name(at) {
            while in_name(at) {
                at += 1;
            }
            let word: String = chars[start..at].iter().collect();
            let prefix = ["r", "b", "c", "br", "cr"].contains(&word.as_str());
            if prefix && word.ends_with('r') && (is(at, '"') || is(at, '#')) {
                // A raw string, or a raw name whose name comes next.
                at = after_raw_string(&chars, at);
            } else if prefix && is(at, '"') {
                at = after_string(&chars, at);
            } else if !c.is_numeric() {
                tokens.push(Token { line, text: word });
            }
        } else if c == ':' && is(at + 1, ':') {
            at += 2;
            tokens.push(Token { line, text: "::".into() });
        } else {
            at += 1;
            if !c.is_whitespace() {
                tokens.push(Token { line, text: c.into() });
            }
        }
        line += chars[start..at].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn after_block_comment(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        let step = match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => 1,
            ('*', Some('/')) => -1,
            _ => 0,
        };
        depth += step;
        at += if step == 0 { 1 } else { 2 };
        if depth == 0 {
            break;
        }
    }
    at.min(chars.len())
}

fn after_string(chars: &[char], mut at: usize) -> usize {
    at += 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// After `#"…"#`, or after the `#` of a raw name.
fn after_raw_string(chars: &[char], mut at: usize) -> usize {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    at += hashes;
    if chars.get(at) != Some(&'"') {
        return at;
    }
    at += 1;
    while at < chars.len() {
        let closed = chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
        at += 1;
        if closed {
            return at + hashes;
        }
    }
    at
}

/// After a character literal, or after the tick of a lifetime.
fn after_quote(chars: &[char], at: usize) -> usize {
    if chars.get(at + 1) == Some(&'\\') {
        let end = chars.iter().skip(at + 3).position(|c| *c == '\'');
        return end.map_or(chars.len(), |n| at + 3 + n + 1);
    }
    if chars.get(at + 2) == Some(&'\'') { at + 3 } else { at + 1 }
}
