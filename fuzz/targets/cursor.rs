//! Cursors: what is accepted is the larger of the query's one number and the header's, and nothing else is.

use causeway::domain::cursor::{Cursor, CursorInput, MAX_CURSOR, start_after};

/// Lines of `name=value` are the query, other lines are `Last-Event-ID` headers.
pub(crate) fn run(data: &[u8]) {
    let mut input = CursorInput::default();
    for line in data.split(|byte| *byte == b'\n') {
        let pair = std::str::from_utf8(line).ok().and_then(|line| line.split_once('='));
        match pair {
            Some(pair) => input.query.push(pair),
            None => input.last_event_id.push(line),
        }
    }
    assert_eq!(start_after(&input).ok().map(Cursor::get), reference(&input));
}

fn reference(input: &CursorInput<'_>) -> Option<u64> {
    let number = |text: &[u8]| {
        let digits = (1..=19).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
        let value = text.iter().fold(0u128, |sum, digit| {
            sum.saturating_mul(10).saturating_add(u128::from(digit.wrapping_sub(b'0')))
        });
        u64::try_from(value).ok().filter(|value| digits && *value <= MAX_CURSOR)
    };
    let query: Option<Vec<u64>> = input.query.iter().map(|(_, value)| number(value.as_bytes())).collect();
    let headers: Option<Vec<u64>> = input.last_event_id.iter().map(|value| number(value)).collect();
    let (query, headers) = (query?, headers?);
    let mut names: Vec<_> = input.query.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    let repeated = names.windows(2).any(|pair| pair[0] == pair[1]) || headers.len() > 1;
    let contradiction = query.windows(2).any(|pair| pair[0] != pair[1]);
    (!repeated && !contradiction).then(|| query.into_iter().chain(headers).max().unwrap_or(0))
}
