//! A script with other expectations, and all else as it was written.

use super::{
    MAX_BYTES, Script,
    line::{Line, Statement},
};
use std::collections::BTreeMap;

/// Changes of a script's lines.
pub(super) struct Rewrite<'a> {
    script: &'a Script,
    /// By the line's index; none if it is removed.
    replaced: BTreeMap<usize, Option<String>>,
    /// By the index of the line that they are before.
    inserted: BTreeMap<usize, Vec<String>>,
    /// The number of the first line where something changes.
    first_line: Option<usize>,
    added_bytes: usize,
    /// What new expectations begin with.
    indentation: &'a str,
}

impl<'a> Rewrite<'a> {
    pub(super) fn new(script: &'a Script) -> Self {
        let is_expectation = |line: &&Line| matches!(line.statement, Statement::Expectation(_));
        let first = script.lines.iter().find(is_expectation);
        Self {
            script,
            replaced: BTreeMap::new(),
            inserted: BTreeMap::new(),
            first_line: None,
            added_bytes: 0,
            indentation: first.map_or("  ", |line| script.indentation(line)),
        }
    }

    pub(super) const fn first_line(&self) -> Option<usize> {
        self.first_line
    }

    /// Whether what is new is longer than a script may be.
    pub(super) const fn is_too_long(&self) -> bool {
        self.added_bytes > MAX_BYTES
    }

    /// Replaces a line's statement, and keeps what is around it.
    pub(super) fn replace(&mut self, index: usize, statement: &str) {
        let line = &self.script.lines[index];
        let comment = self.script.comment(line);
        let gap = if comment.is_empty() { "" } else { "  " };
        let text = format!("{}{statement}{gap}{comment}", self.script.indentation(line));
        self.note(line.number, text.len());
        self.replaced.insert(index, Some(text));
    }

    /// Removes a line, but for its comment.
    pub(super) fn remove(&mut self, index: usize) {
        let line = &self.script.lines[index];
        let comment = self.script.comment(line);
        let rest = format!("{}{comment}", self.script.indentation(line));
        self.note(line.number, 0);
        let kept = (!comment.is_empty()).then_some(rest);
        self.replaced.insert(index, kept);
    }

    /// Inserts an expectation before the line of an index; `near` is the number of the line that it
    /// belongs to.
    pub(super) fn insert_expectation(&mut self, before: usize, near: usize, statement: &str) {
        let text = format!("{}{statement}", self.indentation);
        self.insert(before, near, text);
    }

    /// Inserts a line.
    pub(super) fn insert(&mut self, before: usize, near: usize, text: String) {
        self.note(near, text.len());
        self.inserted.entry(before).or_default().push(text);
    }

    /// The script that it becomes.
    pub(super) fn finish(&self) -> String {
        let text = &self.script.text;
        let end_of_line = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let mut rewritten = String::with_capacity(text.len() + self.added_bytes);
        let insert = |rewritten: &mut String, index: usize| {
            let Some(lines) = self.inserted.get(&index) else {
                return;
            };
            if !rewritten.is_empty() && !rewritten.ends_with('\n') {
                rewritten.push_str(end_of_line);
            }
            for line in lines {
                rewritten.push_str(line);
                rewritten.push_str(end_of_line);
            }
        };
        for (index, line) in self.script.lines.iter().enumerate() {
            insert(&mut rewritten, index);
            let next = self.script.lines.get(index + 1);
            let end = next.map_or(text.len(), |next| next.range.start);
            match self.replaced.get(&index) {
                None => rewritten.push_str(&text[line.range.start..end]),
                Some(None) => {}
                Some(Some(replacement)) => {
                    rewritten.push_str(replacement);
                    rewritten.push_str(&text[line.range.end..end]);
                }
            }
        }
        insert(&mut rewritten, self.script.lines.len());
        rewritten
    }

    fn note(&mut self, line: usize, bytes: usize) {
        self.added_bytes += bytes + 2;
        self.first_line = Some(self.first_line.map_or(line, |first| first.min(line)));
    }
}

impl Script {
    fn indentation(&self, line: &Line) -> &str {
        let text = &self.text[line.range.clone()];
        &text[..text.len() - text.trim_start_matches([' ', '\t']).len()]
    }

    fn comment(&self, line: &Line) -> &str {
        &self.text[line.comment.clone()]
    }
}
