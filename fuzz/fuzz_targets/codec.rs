//! The codec of ABI 0.4 against bincode: both decode arbitrary bytes alike, and encode arbitrary
//! calls alike.
#![no_main]

#[path = "../../tests/it/published.rs"]
mod published;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use published::{MessageFromProcess, as_published, as_request};
use stateroom_wasmi_host::{
    ClientId, MessagePayload,
    abi::{Call, decode, encode_into, encoded_len},
};

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Decode(&'a [u8]),
    /// Small first words, so that more inputs have valid tags.
    DecodeWords([u8; 3], &'a [u8]),
    Encode(u8, u32, &'a [u8]),
    EncodeText(u32, &'a str),
}

fuzz_target!(|input: Input<'_>| match input {
    Input::Decode(bytes) => check_decode(bytes),
    Input::DecodeWords(words, bytes) => {
        let mut all: Vec<u8> = words
            .into_iter()
            .flat_map(|word| u32::from(word).to_le_bytes())
            .collect();
        all.extend(bytes);
        check_decode(&all);
    }
    Input::Encode(tag, client, bytes) => check_encode(&match tag % 5 {
        0 => Call::Init {
            room_id: "is not sent"
        },
        1 => Call::Connect(ClientId(client)),
        2 => Call::Disconnect(ClientId(client)),
        3 => Call::Message(ClientId(client), MessagePayload::Bytes(bytes)),
        _ => Call::Timer,
    }),
    Input::EncodeText(client, text) => {
        check_encode(&Call::Message(ClientId(client), MessagePayload::Text(text)));
    }
});

fn check_decode(bytes: &[u8]) {
    let published: Option<MessageFromProcess> = bincode::deserialize(bytes).ok();
    assert_eq!(decode(bytes).ok(), published.as_ref().map(as_request));
}

fn check_encode(call: &Call<'_>) {
    let mut bytes = vec![0xaa; encoded_len(call)];
    encode_into(call, &mut bytes);
    assert_eq!(
        bytes,
        bincode::serialize(&as_published(call)).expect("bincode can encode every call")
    );
}
