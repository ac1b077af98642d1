//! A text that the page shows.

use stateroom_wasmi_host::Escaped;
use std::sync::{Arc, Mutex, PoisonError};

/// A text for the page, such as why a module was not built.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notice(Arc<Mutex<Option<String>>>);

impl Notice {
    pub(crate) fn set(&self, text: Option<String>) {
        /// More would not be read.
        const MAX_CHARS: usize = 20_000;
        let text = text.map(|text| {
            let text = Escaped::new(text).keep_lines().at_most(MAX_CHARS);
            text.to_string()
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    pub(super) fn get(&self) -> Option<String> {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.clone()
    }
}
