//! Values and spellings for the property tests of JSON texts.

use proptest::prelude::*;
use serde_json::Value as Json;

/// Small values with every kind of member.
pub(super) fn any_json() -> impl Strategy<Value = Json> {
    let text = "[ab\"\\\\/\n\u{85}\u{2028}é\u{1F600}]{0,3}";
    let number = prop_oneof![-3..3i64, any::<i64>()].prop_map(Json::from);
    let literal = prop_oneof![Just(Json::Null), any::<bool>().prop_map(Json::from)];
    prop_oneof![literal, number, text.prop_map(Json::from)].prop_recursive(4, 24, 4, |inner| {
        let members = prop::collection::vec(("[abé]{0,2}", inner.clone()), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Json::from),
            members.prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// The same value in another spelling; `dice` decides.
pub(super) fn respelt(value: &Json, dice: &mut dyn FnMut(usize) -> usize) -> String {
    let space = ["", " ", "\n", "\t\r"][dice(4)];
    let text = match value {
        Json::Number(number) if *number != 0.into() => {
            format!("{number}{}", ["", ".00", "000E-3", "e+0"][dice(4)])
        }
        Json::String(text) if dice(2) == 0 => {
            let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
            format!("\"{escaped}\"")
        }
        Json::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| respelt(item, dice)).collect();
            format!("[{}]", items.join(","))
        }
        Json::Object(members) => {
            let pair = |(key, value): (&String, _)| {
                respelt(&Json::from(key.as_str()), dice) + ":" + &respelt(value, dice)
            };
            let mut members: Vec<_> = members.iter().map(pair).collect();
            (1..members.len()).for_each(|at| members.swap(at, dice(at + 1)));
            format!("{{{}}}", members.join(","))
        }
        plain => plain.to_string(),
    };
    format!("{space}{text}{space}")
}

/// Repeatable throws.
pub(super) fn dice(mut seed: u64) -> impl FnMut(usize) -> usize {
    move |sides| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % sides
    }
}
