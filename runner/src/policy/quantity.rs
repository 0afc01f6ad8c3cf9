// SPDX-License-Identifier: MIT OR Apache-2.0
//! Durations, sizes and signals as a policy writes them.

use std::time::Duration;

/// No limit is longer: a hundred years are a typing mistake, and clocks overflow beyond.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// `30m`, `1h30m`, `500ms`: numbers with units `ms`, `s`, `m`, `h`, `d`, `w`. Zero, negative
/// and unit-less values are refused; the error says what to write.
pub fn duration(text: &str) -> Result<Duration, String> {
    const SHAPE: &str = "write a number with a unit: \"30s\", \"10m\", \"2h\" or \"7d\"";
    if text.starts_with('-') {
        return Err(format!("is negative; {SHAPE}"));
    }
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit());
        let (unit, after) = split(after, |c| c.is_ascii_alphabetic());
        let milliseconds: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(format!("is not a duration; {SHAPE}")),
        };
        if number.is_empty() {
            return Err(format!("is not a duration; {SHAPE}"));
        }
        let value = number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(milliseconds));
        total = value
            .and_then(|value| total.checked_add(value))
            .filter(|total| Duration::from_millis(*total) <= LONGEST)
            .ok_or_else(|| "is longer than 100 years; write a shorter duration".to_owned())?;
        rest = after;
    }
    match total {
        0 if text.is_empty() => Err(format!("is empty; {SHAPE}")),
        0 => Err("is zero; write a longer duration, or remove the key".to_owned()),
        total => Ok(Duration::from_millis(total)),
    }
}

/// `512M`: bytes, or a number with `K`, `M`, `G` or `T` (powers of 1024).
pub fn size(text: &str) -> Result<u64, String> {
    const SHAPE: &str = "write bytes or a number with K, M, G or T: \"512M\"";
    if text.starts_with('-') {
        return Err(format!("is negative; {SHAPE}"));
    }
    let (number, unit) = split(text, |c| c.is_ascii_digit());
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("is not a size; {SHAPE}")),
    };
    if number.is_empty() {
        return Err(format!("is not a size; {SHAPE}"));
    }
    let bytes = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift));
    // The kernel's limits are signed 64-bit numbers (getrlimit(2), off_t).
    match bytes.filter(|bytes| i64::try_from(*bytes).is_ok()) {
        Some(0) => Err("is zero; write a larger size, or remove the key".to_owned()),
        Some(bytes) => Ok(bytes),
        None => Err("is larger than the kernel can count; write a smaller size".to_owned()),
    }
}

/// The least memory that a run is given: with less not even a shell starts.
const LEAST_MEMORY: u64 = 4 << 20;

/// A [`size`] of memory.
pub fn memory(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < LEAST_MEMORY => {
            Err("is too little for a program to start; write 4M or more".to_owned())
        }
        bytes => Ok(bytes),
    }
}

/// `150%`: a share of processor time, 100% for one processor.
pub fn percent(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').and_then(|number| {
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| number.parse().ok()).flatten()
    });
    match number {
        Some(percent @ 1..=100_000) => Ok(percent),
        Some(_) => Err("is out of range; write 1% to 100000%".to_owned()),
        None => Err("is not a share; write percent of one processor: \"150%\"".to_owned()),
    }
}

/// `TERM` or `SIGTERM`: the number of a signal that can ask a program to end.
pub fn signal(text: &str) -> Result<i32, String> {
    match text.strip_prefix("SIG").unwrap_or(text) {
        "TERM" => Ok(libc::SIGTERM),
        "INT" => Ok(libc::SIGINT),
        "HUP" => Ok(libc::SIGHUP),
        "QUIT" => Ok(libc::SIGQUIT),
        "USR1" => Ok(libc::SIGUSR1),
        "USR2" => Ok(libc::SIGUSR2),
        "KILL" => Ok(libc::SIGKILL),
        _ => Err("is not a signal that can end a program; write TERM, INT, HUP, QUIT, USR1, USR2 or KILL".to_owned()),
    }
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_with_units_are_read() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    }

    #[test]
    fn shares_and_memory_have_bounds() {
        assert_eq!([percent("1%"), percent("150%")], [Ok(1), Ok(150)]);
        for text in [
            "0%",
            "",
            "%",
            "150",
            "-1%",
            "+5%",
            "1.5%",
            "100001%",
            "99999999999%",
        ] {
            assert!(percent(text).is_err(), "{text}");
        }
        assert_eq!(memory("4M"), Ok(4 << 20));
        assert!(memory("4095K").is_err() && memory("99999999999G").is_err());
    }

    #[test]
    fn durations_without_meaning_are_refused() {
        for text in [
            "",
            "0s",
            "-5m",
            "30",
            "m",
            "5x",
            "1.5h",
            "9999999999999999999d",
            "5 m",
            "500w500000w",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024_and_bounded() {
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("123"), Ok(123));
        for text in [
            "",
            "0",
            "0G",
            "-1",
            "M",
            "1.5G",
            "1GB",
            "99999999T",
            "9223372036854775808",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn signals_are_named() {
        assert_eq!(signal("SIGINT"), Ok(libc::SIGINT));
        assert!(signal("STOP").is_err());
    }
}
