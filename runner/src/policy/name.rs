// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host names and wildcards over them, in one form: lower case, ASCII, without a dot at the end.
//! A name with letters of another alphabet is written in its `xn--` form, because two that look
//! alike must not look alike to who reads the policy.

/// Longest name, without a dot at the end (RFC 1035, 2.3.4).
pub const MAX_NAME: usize = 253;
/// Longest label.
const MAX_LABEL: usize = 63;

/// A name, or every name below one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPattern {
    /// `true`: every name that ends in `.name`, and not `name` itself.
    pub wildcard: bool,
    /// In its one form.
    pub name: String,
}

impl HostPattern {
    /// Reads `api.example.com` or `*.example.com`; the error is what is wrong and what to write
    /// instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.is_ascii() {
            return Err(
                "has letters outside ASCII; write the name in its xn-- form, as DNS has it"
                    .to_owned(),
            );
        }
        let (wildcard, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if rest.contains('*') {
            return Err(
                "has a `*` that is not the whole first label; write \"*.example.com:443\""
                    .to_owned(),
            );
        }
        let Some(name) = normal(rest) else {
            return Err(format!(
                "is no host name: labels have 1 to {MAX_LABEL} letters, digits and hyphens, the \
                 whole at most {MAX_NAME}"
            ));
        };
        if name == "localhost" || name.ends_with(".localhost") {
            return Err("is this machine; write localhost".to_owned());
        }
        let pattern = Self { wildcard, name };
        match wildcard && pattern.is_public() {
            true => Err(
                "is everybody below a public suffix; name the host, or a longer suffix: \
                 \"*.kb.example.com:443\""
                    .to_owned(),
            ),
            false => Ok(pattern),
        }
    }

    /// Whether `name`, in its one form, is meant.
    pub fn covers(&self, name: &str) -> bool {
        match self.wildcard {
            false => self.name == name,
            true => name
                .strip_suffix(&self.name)
                .and_then(|front| front.strip_suffix('.'))
                .is_some_and(|front| !front.is_empty()),
        }
    }

    /// Whether every name that `other` means is meant.
    pub fn contains(&self, other: &Self) -> bool {
        match (self.wildcard, other.wildcard) {
            (true, true) => self.name == other.name || self.covers(&other.name),
            (_, false) => self.covers(&other.name),
            (false, true) => false,
        }
    }

    /// Whether anybody may register names directly below.
    fn is_public(&self) -> bool {
        let length =
            |name: &str| psl::suffix(name.as_bytes()).map(|suffix| suffix.as_bytes().len());
        // Where the list has `*.NAME`, each name below is a suffix, and NAME itself may be none.
        length(&self.name).is_none_or(|suffix| suffix == self.name.len())
            || length(&format!("x.{}", self.name)).is_none_or(|suffix| suffix > self.name.len())
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.wildcard {
            f.write_str("*.")?;
        }
        f.write_str(&self.name)
    }
}

/// A name in its one form; `None` for what is no host name. The name may be hostile: a server
/// name of TLS, a question, a header.
pub fn normal(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() || name.len() > MAX_NAME || !name.split('.').all(is_label) {
        return None;
    }
    // What an address could be mistaken for is none (WHATWG URL, "ends in a number").
    let last = name.rsplit('.').next().unwrap_or(name);
    let number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.starts_with("0x")
        || last.starts_with("0X");
    (!number).then(|| name.to_ascii_lowercase())
}

fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=MAX_LABEL).contains(&bytes.len())
        && bytes.iter().all(letter)
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        HostPattern::parse(text).unwrap_or_else(|what| panic!("{text}: {what}"))
    }

    #[test]
    fn one_form_of_a_name() {
        assert_eq!(pattern("API.Example.COM.").to_string(), "api.example.com");
        assert_eq!(pattern("*.KB.example.com").to_string(), "*.kb.example.com");
        assert_eq!(
            pattern("xn--bcher-kva.example").name,
            "xn--bcher-kva.example"
        );
        assert_eq!(pattern("db").name, "db");
        let label = "a".repeat(63);
        assert!(normal(&format!("{label}.example")).is_some());
        assert!(normal(&format!("{label}a.example")).is_none());
        let long = [&label[..], &label, &label, &label[..61]].join(".");
        assert_eq!(long.len(), 253);
        assert!(normal(&long).is_some());
        assert!(normal(&format!("{long}.")).is_some());
        assert!(normal(&format!("{long}a")).is_none());
    }

    #[test]
    fn a_wildcard_ends_at_a_label() {
        let ok = pattern("*.ok.example.com");
        assert!(ok.covers("a.ok.example.com"));
        assert!(ok.covers("a.b.ok.example.com"));
        for other in [
            "ok.example.com",
            "notok.example.com",
            ".ok.example.com",
            "example.com",
        ] {
            assert!(!ok.covers(other), "{other}");
        }
        assert!(pattern("*.example.com").contains(&ok));
        assert!(ok.contains(&ok.clone()));
        assert!(!ok.contains(&pattern("*.example.com")));
        assert!(ok.contains(&pattern("a.ok.example.com")));
        assert!(!pattern("ok.example.com").contains(&ok));
    }

    #[test]
    fn what_is_no_name_is_refused_with_what_to_write() {
        for (text, expected) in [
            ("*.com", "public suffix"),
            ("*.co.uk", "public suffix"),
            ("*.github.io", "public suffix"),
            ("*.internal", "public suffix"),
            ("*.kawasaki.jp", "public suffix"),
            ("*.compute.amazonaws.com", "public suffix"),
            ("*.*.example.com", "whole first label"),
            ("a.*.example.com", "whole first label"),
            ("*a.example.com", "whole first label"),
            ("bücher.example", "xn--"),
            ("a..example", "no host name"),
            (".example.com", "no host name"),
            ("-a.example", "no host name"),
            ("a b.example", "no host name"),
            ("a.example\0.ok.com", "no host name"),
            ("a.1", "no host name"),
            ("1.0x7f", "no host name"),
            ("*.localhost", "write localhost"),
            ("a.localhost", "write localhost"),
        ] {
            let what = HostPattern::parse(text).unwrap_err();
            assert!(what.contains(expected), "{text}: {what}");
        }
    }
}
