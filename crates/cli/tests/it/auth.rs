//! JSON Web Tokens.

use super::{Client, Server, TempDir, bundled_path, eventually, tool};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Error, client::IntoClientRequest},
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
}

/// A token with these claims that is valid for an hour.
fn signed(secret: &str, mut claims: Value) -> String {
    if claims.get("exp").is_none() {
        claims["exp"] = json!(now() + 3600);
    }
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::default(), &claims, &key).expect("it is encoded")
}

/// The client, or the status with which it is refused.
async fn join(server: &Server, room: &str, token: &str) -> Result<Client, u16> {
    let mut request = format!("ws://{}/ws/{room}", server.address)
        .into_client_request()
        .expect("a URL");
    if !token.is_empty() {
        let value = format!("Bearer {token}").parse().expect("a value");
        request.headers_mut().insert("Authorization", value);
    }
    match eventually("the handshake", connect_async(request)).await {
        Ok((socket, _)) => Ok(Client(socket)),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// The status of a handshake.
async fn status(server: &Server, room: &str, token: &str) -> u16 {
    join(server, room, token)
        .await
        .map_or_else(|status| status, |_| 101)
}

#[tokio::test]
async fn only_clients_with_a_valid_token_join() {
    let folder = TempDir::new();
    let file = folder.write("secret", format!("{SECRET}\n"));
    let file = file.to_str().expect("a path");
    let args = [
        "--auth-jwt-secret",
        file,
        "--auth-audience",
        "game",
        "--auth-audience",
        "test",
        "--auth-issuer",
        "lobby",
    ];
    let server = Server::bundled("echo-c", &args);
    let good = json!({ "aud": "game", "iss": "lobby" });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        signed(SECRET, claims)
    };
    for (token, expected) in [
        (signed(SECRET, good.clone()), 101),
        (with("aud", json!(["other", "test"])), 101),
        // Clocks differ by seconds.
        (with("exp", json!(now() - 5)), 101),
        (with("nbf", json!(now() - 5)), 101),
        (String::new(), 401),
        ("x".into(), 401),
        ("a.b.c".into(), 401),
        (with("exp", json!(now() - 3600)), 401),
        (with("exp", json!("tomorrow")), 401),
        (with("nbf", json!(now() + 3600)), 401),
        (with("aud", json!("other")), 401),
        (with("aud", Value::Null), 401),
        (with("iss", json!("other")), 401),
        (signed(&SECRET.replace('0', "1"), good.clone()), 401),
        (with("room", json!(["hall", "lobby"])), 101),
        (with("room", json!("lobby")), 101),
        (with("room", json!("lob*")), 101),
        (with("room", json!("hall")), 403),
        (with("room", json!([])), 403),
        (with("room", json!("lobbyist")), 403),
        (with("room", json!(7)), 401),
    ] {
        assert_eq!(status(&server, "lobby", &token).await, expected, "{token}");
    }
    // Without a signature, and with one of another kind of key: what libraries once took.
    let encoded = |json: &str| base64_url(json.as_bytes());
    let claims = encoded(&format!(
        r#"{{"aud":"game","iss":"lobby","exp":{}}}"#,
        now() + 3600
    ));
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"HS256"}"#,
    ] {
        let token = format!("{}.{claims}.", encoded(header));
        assert_eq!(status(&server, "lobby", &token).await, 401, "{header}");
    }
    // Pages cannot set headers.
    let token = signed(SECRET, good);
    let joined = server
        .try_join(&format!("/lobby?access_token={token}"))
        .await;
    assert!(joined.is_ok());
    let twice = server
        .try_join("/lobby?access_token=a&access_token=b")
        .await;
    assert!(twice.is_err_and(|error| error.to_string().contains("400")));
    let log = server.log.lock().expect("not poisoned").clone();
    assert!(!log.contains(&token) && !log.contains(SECRET), "{log}");
}

/// Base64 for URLs, without padding (RFC 4648, section 5).
fn base64_url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        (0..=chunk.len()).map(move |digit| DIGITS[(bits >> (18 - 6 * digit)) as usize % 64])
    });
    String::from_utf8(digits.collect()).expect("ASCII")
}

#[tokio::test]
async fn a_user_has_one_client_id() {
    let folder = TempDir::new();
    let file = folder.write("secret", SECRET);
    let args = ["--auth-jwt-secret", file.to_str().expect("a path")];
    let server = Server::bundled("chat-rust-0.4", &args);
    let [ada, eve] = ["ada", "eve"].map(|name| signed(SECRET, json!({ "sub": name })));
    let mut first = join(&server, "r", &ada).await.expect("it may");
    let welcome = first.receive_text().await;
    // Another user that claims the first one's token is another client.
    let mut other = join(&server, "r?token=%00ada", &eve).await;
    assert!(other.is_err_and(|status| status == 400));
    other = join(&server, "r?token=ada", &eve).await;
    let mut other = other.expect("it may");
    assert_ne!(other.receive_text().await, welcome);
    // The same user again, with a newer token: its older connection is replaced.
    let newer = signed(SECRET, json!({ "sub": "ada", "exp": now() + 7200 }));
    let mut again = join(&server, "r?token=anything", &newer)
        .await
        .expect("it may");
    assert_eq!(first.closed().await.0, 1008);
    assert_eq!(again.receive_text().await, welcome);
}

#[tokio::test]
async fn keys_are_read_again_and_keys_of_all_kinds_are_taken() {
    let folder = TempDir::new();
    let [first, second] = [(); 2].map(|()| rcgen::KeyPair::generate().expect("a key"));
    let sign = |pair: &rcgen::KeyPair, kid: Option<&str>| {
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key");
        let mut header = Header::new(Algorithm::ES256);
        header.kid = kid.map(Into::into);
        encode(&header, &json!({ "exp": now() + 3600 }), &key).expect("it is encoded")
    };
    let set = |pairs: &[(&str, &rcgen::KeyPair)]| {
        let keys = pairs.iter().map(|(kid, pair)| {
            let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key");
            let mut jwk = jwk::Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a key");
            jwk.common.key_id = Some((*kid).into());
            jwk
        });
        serde_json::to_string(&jwk::JwkSet {
            keys: keys.collect(),
        })
        .expect("JSON")
    };
    let file = folder.write("keys", set(&[("one", &first)]));
    let file = file.to_str().expect("a path");
    let server = Server::bundled("echo-c", &["--auth-jwt", file, "--connect-rate", "0"]);
    assert_eq!(status(&server, "", &sign(&first, Some("one"))).await, 101);
    assert_eq!(status(&server, "", &sign(&first, None)).await, 101);
    assert_eq!(status(&server, "", &sign(&first, Some("two"))).await, 401);
    assert_eq!(status(&server, "", &sign(&second, Some("two"))).await, 401);
    // A secret that is somebody's public key.
    let forged = signed(&first.public_key_pem(), json!({}));
    assert_eq!(status(&server, "", &forged).await, 401);

    // What is no key leaves the keys as they are.
    folder.write("keys", "{");
    let stays = async {
        while !server
            .log
            .lock()
            .expect("not poisoned")
            .contains("stays as it was")
        {
            assert_eq!(status(&server, "", &sign(&first, Some("one"))).await, 101);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    eventually("the file is read again", stays).await;
    folder.write("keys", set(&[("one", &first), ("two", &second)]));
    let token = sign(&second, Some("two"));
    let changes = async { while status(&server, "", &token).await != 101 {} };
    eventually("the keys are read again", changes).await;
    assert_eq!(status(&server, "", &sign(&first, Some("one"))).await, 101);

    let file = folder.write("key.pem", second.public_key_pem());
    let server = Server::bundled("echo-c", &["--auth-jwt", file.to_str().expect("a path")]);
    assert_eq!(status(&server, "", &sign(&second, Some("two"))).await, 101);
    assert_eq!(status(&server, "", &sign(&first, None)).await, 401);
}

#[tokio::test]
async fn what_is_public_is_never_taken_for_a_secret() {
    let folder = TempDir::new();
    let pair = rcgen::KeyPair::generate().expect("a key");
    let pem = pair.public_key_pem();
    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key");
    let header = Header::new(Algorithm::ES256);
    let token = encode(&header, &json!({ "exp": now() + 3600 }), &key).expect("it is encoded");
    // As some editors and programs write it.
    for content in [
        format!("\u{feff}{pem}"),
        format!("Bag Attributes\n    friendlyName: game\n{pem}"),
        format!("# the lobby's\r\n\r\n{pem}"),
    ] {
        let file = folder.write("key.pem", &content);
        let args = ["--auth-jwt", file.to_str().expect("a path")];
        let server = Server::bundled("echo-c", &args);
        let forged = signed(content.trim_end_matches('\n'), json!({}));
        assert_eq!(status(&server, "", &forged).await, 401, "{content}");
        assert_eq!(status(&server, "", &token).await, 101, "{content}");
    }
}

#[test]
fn what_is_no_key_is_refused() {
    let folder = TempDir::new();
    let module = bundled_path("echo-c");
    let module = module.to_str().expect("a path");
    for (content, expected) in [
        ("", "must be"),
        // What is no key must not become a secret, which everybody may know.
        ("a secret of 32 bytes, or of more", "must be"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAA", "must be"),
        ("{\"keys\":[]}", "must be"),
        ("{", "must be"),
        // A list of public keys that is no set.
        (
            "[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAA\"}]",
            "must be",
        ),
        // A secret of 31 bytes in a set.
        (
            "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}]}",
            "32 bytes",
        ),
        ("{\"keys\":[{\"kty\":\"oct\",\"k\":\"\"}]}", "32 bytes"),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "must be",
        ),
    ] {
        let file = folder.write("keys", content);
        let file = file.to_str().expect("a path");
        let refused = tool(&["serve", module, "--port", "0", "--auth-jwt", file]);
        assert!(!refused.status.success(), "{content}");
        let error = String::from_utf8(refused.stderr).expect("text");
        assert!(error.contains(expected), "{error}");
    }
    for flag in ["--auth-jwt", "--auth-jwt-secret"] {
        let refused = tool(&["serve", module, "--port", "0", flag, "/nowhere"]);
        assert!(!refused.status.success());
    }
    for content in ["", "short", "0123456789abcdef0123456789abcde\r\n"] {
        let file = folder.write("secret", content);
        let file = file.to_str().expect("a path");
        let refused = tool(&["serve", module, "--port", "0", "--auth-jwt-secret", file]);
        assert!(!refused.status.success(), "{content}");
        let error = String::from_utf8(refused.stderr).expect("text");
        assert!(error.contains("32 bytes"), "{error}");
    }
}
