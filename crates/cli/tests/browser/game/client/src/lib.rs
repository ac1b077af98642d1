//! What the page does with a message.

use wasm_bindgen::prelude::wasm_bindgen;

const END: &str = "!";

/// Says it louder.
#[wasm_bindgen]
pub fn shout(text: &str) -> String {
    text.to_uppercase() + END
}
