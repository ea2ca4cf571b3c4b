//! What a run of the built-in orchestrator does: a few plausible steps that really work on their input.

use serde_json::{Value, json};

use crate::domain::limits::clean_reason;

/// One thing that happens in a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Act {
    /// Beats that pass before it.
    pub(super) beats: u32,
    /// Type of its event.
    pub(super) kind: &'static str,
    /// The step it belongs to.
    pub(super) step: Option<&'static str>,
    /// Payload of its event.
    pub(super) payload: Value,
}

/// What there is to know about a text.
struct Measure {
    words: usize,
    characters: usize,
    longest: String,
}

/// Everything that follows the creation of a run, the last act being its end; that one has the output.
pub(super) fn acts(input: &Value) -> Vec<Act> {
    let text = text_of(input);
    let Measure { words, characters, longest } = measure(&text);
    let answer = format!("{words} words, the longest is '{longest}': {text}");
    let (read, look, write) = (Some("stp_1"), Some("stp_2"), Some("stp_3"));
    let tool = "text.measure";
    let act = |beats, kind, step, payload| Act { beats, kind, step, payload };
    vec![
        act(1, "agentos.run.step.started", read, json!({"name": "read", "message": "Reading the input"})),
        act(1, "agentos.model.requested", read, json!({"purpose": "plan", "model": "demo"})),
        act(
            4,
            "agentos.model.completed",
            read,
            json!({"text": "Measure the text, then say what was found."}),
        ),
        act(1, "agentos.run.step.completed", read, json!({"name": "read"})),
        act(1, "agentos.run.step.started", look, json!({"name": "measure", "message": "Counting words"})),
        act(1, "agentos.tool.call.requested", look, json!({"tool": tool})),
        act(
            4,
            "agentos.tool.call.completed",
            look,
            json!({"tool": tool, "words": words, "characters": characters}),
        ),
        act(1, "agentos.run.step.completed", look, json!({"name": "measure"})),
        act(1, "agentos.run.step.started", write, json!({"name": "answer", "message": "Writing the answer"})),
        act(1, "agentos.model.requested", write, json!({"purpose": "answer", "model": "demo"})),
        act(3, "agentos.model.completed", write, json!({"text": answer})),
        act(1, "agentos.run.step.completed", write, json!({"name": "answer"})),
        act(1, "agentos.run.completed", None, json!({"output": {"type": "text", "text": answer}})),
    ]
}

/// The text of an input, whatever its form; bounded.
fn text_of(input: &Value) -> String {
    match input.as_str().or_else(|| input.get("text").and_then(Value::as_str)) {
        Some(text) => clean_reason(text),
        None => clean_reason(&input.to_string()),
    }
}

fn measure(text: &str) -> Measure {
    let trimmed = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
    let words: Vec<String> = text.split_whitespace().map(trimmed).filter(|word| !word.is_empty()).collect();
    let mut longest = "";
    for word in &words {
        if word.chars().count() > longest.chars().count() {
            longest = word;
        }
    }
    Measure { words: words.len(), characters: text.chars().count(), longest: longest.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_is_made_of_the_input() {
        let acts = acts(&json!({"type": "text", "text": "Say hello to the gateway!"}));
        let last = acts.last().expect("an end");
        assert_eq!(last.kind, "agentos.run.completed");
        assert_eq!(
            last.payload["output"]["text"],
            "5 words, the longest is 'gateway': Say hello to the gateway!"
        );
    }

    #[test]
    fn any_input_makes_a_run() {
        for input in [
            json!(null),
            json!("plain"),
            json!([1, 2]),
            json!({"text": 7}),
            json!({"text": "x".repeat(9999)}),
        ] {
            assert_eq!(acts(&input).len(), 13, "{input}");
        }
    }
}
