//! The files of `--static`.

use super::{Server, TempDir};
use std::{
    fs::{self, File},
    time::{Duration, SystemTime},
};

/// Serves the folder `site` of a folder.
fn serve(folder: &TempDir) -> Server {
    let site = folder.0.join("site");
    Server::bundled("echo-c", &["--static", site.to_str().expect("UTF-8")])
}

#[tokio::test]
async fn static_files_replace_the_page() {
    let folder = TempDir::new();
    folder.write("site/index.html", "my page");
    folder.write("site/js/a b.js", "my script");
    folder.write("secret", "my secret");
    let server = serve(&folder);
    assert_eq!(server.get("/").await.body, "my page");
    assert_eq!(server.get("/js/a%20b.js").await.body, "my script");
    assert_eq!(server.get("/nothing").await.status, 404);
    for outside in ["/../secret", "/..%2Fsecret", "/%2e%2e/secret", "//secret"] {
        let response = server.get(outside).await;
        assert_eq!(response.status, 404, "{outside}");
        assert!(!response.body.contains("my secret"), "{outside}");
    }
    // The server's own URLs take precedence.
    assert_eq!(server.get("/status").await.body, "ok");
    let mut client = server.join("/r").await;
    client.send("hello").await;
    client.expect("hello").await;
}

/// Makes a FIFO.
#[cfg(unix)]
fn make_fifo(path: &std::path::Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo runs").success());
}

#[tokio::test]
#[cfg(unix)]
async fn only_regular_files_below_the_folder_are_served() {
    use std::os::unix::{fs::symlink, net::UnixListener};
    let folder = TempDir::new();
    for name in [
        "a.txt",
        "dir/b.txt",
        "dir/.hidden",
        ".dotfile",
        ".git/config",
        "c\\d",
    ] {
        folder.write(&format!("site/{name}"), "a file");
    }
    folder.write("site/index/index.html", "an index");
    folder.write("secret", "a secret");
    folder.write("site-2/file", "of a folder with a similar name");
    let site = folder.0.join("site");
    fs::create_dir(site.join("no-index")).expect("cannot create a folder");
    fs::create_dir_all(site.join("odd-index/index.html")).expect("cannot create a folder");
    make_fifo(&site.join("fifo"));
    fs::create_dir(site.join("fifo-index")).expect("cannot create a folder");
    make_fifo(&site.join("fifo-index/index.html"));
    let _listener = UnixListener::bind(site.join("socket")).expect("cannot make a socket");
    for (target, link) in [
        ("dir/b.txt", "link-in"),
        ("dir", "link-in-dir"),
        ("../secret", "link-out"),
        ("..", "link-out-dir"),
        ("../site-2/file", "link-similar"),
        ("/dev/zero", "link-device"),
        (".dotfile", "link-dotfile"),
        (".git", "link-dot-dir"),
        ("link-loop", "link-loop"),
        ("fifo", "link-fifo"),
    ] {
        symlink(target, site.join(link)).expect("cannot make a link");
    }
    let mut server = serve(&folder);
    for path in [
        "/a.txt",
        "/%61.txt",
        "/dir/b.txt",
        "/link-in",
        "/link-in-dir/b.txt",
    ] {
        let response = server.get(path).await;
        assert_eq!(
            (response.status, &*response.body),
            (200, "a file"),
            "{path}"
        );
    }
    assert_eq!(server.get("/index/").await.body, "an index");
    let long = format!("/{}", "x".repeat(1000));
    let deep = "/dir".repeat(2000);
    for path in [
        "/",
        "/nothing",
        "/a.txt/",
        "/a.txt/b",
        "/dir",
        "/dir/",
        "/no-index",
        "/no-index/",
        "/odd-index/",
        "/.dotfile",
        "/.git/config",
        "/%2Egit/config",
        "/dir/.hidden",
        "/link-out",
        "/link-out-dir/secret",
        "/link-similar",
        "/link-device",
        "/link-dotfile",
        "/link-dot-dir/config",
        "/link-loop",
        "/fifo",
        "/link-fifo",
        "/fifo-index",
        "/fifo-index/",
        "/socket",
        "/../secret",
        "/..%2Fsecret",
        "/%2e%2e/secret",
        "/dir/../a.txt",
        "/dir/./b.txt",
        "/dir%2Fb.txt",
        "/dir%5Cb.txt",
        "/c%5Cd",
        "//secret",
        "//a.txt",
        "/dir//b.txt",
        "/a.txt%00",
        "/%FF",
        &long,
        &deep,
    ] {
        let response = server.get(path).await;
        assert_eq!(response.status, 404, "{path}");
        assert_eq!(response.body, "not found\n", "{path}");
    }
    // Nothing waits for a writer of the FIFOs.
    server.signal("-TERM");
    assert_eq!(server.exited().await.code(), Some(0));
}

#[tokio::test]
async fn a_folder_is_redirected_to_its_slash() {
    let folder = TempDir::new();
    folder.write("site/dir/index.html", "an index");
    let server = serve(&folder);
    for (path, location) in [
        ("/dir", "/dir/"),
        ("/dir?a=b", "/dir/?a=b"),
        ("/%64ir", "/%64ir/"),
    ] {
        let response = server.get(path).await;
        assert_eq!(response.status, 307, "{path}");
        let location = format!("\r\nlocation: {location}\r\n");
        assert!(
            response.head.contains(&location),
            "{path}: {}",
            response.head
        );
    }
    // Which a browser would take for the name of another server.
    assert_eq!(server.get("//dir").await.status, 404);
}

#[tokio::test]
async fn the_name_tells_the_type() {
    let folder = TempDir::new();
    let types = [
        ("a.html", "text/html"),
        ("a.js", "text/javascript"),
        ("a.wasm", "application/wasm"),
        ("a.svg", "image/svg+xml"),
        ("a.unknown", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ];
    for (name, _) in types {
        folder.write(&format!("site/{name}"), "");
    }
    let server = serve(&folder);
    for (name, expected) in types {
        let response = server.get(&format!("/{name}")).await;
        let expected = format!("\r\ncontent-type: {expected}\r\n");
        assert!(
            response.head.contains(&expected),
            "{name}: {}",
            response.head
        );
        assert!(
            response.head.contains("\r\ncontent-length: 0\r\n"),
            "{}",
            response.head
        );
    }
}

/// A request for `/file`, and its response: the head, in lower case, and the body.
async fn request(server: &Server, method: &str, headers: &str) -> (String, String) {
    let request =
        format!("{method} /file HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    let response = server.request(request.as_bytes()).await;
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    (format!("{}\r\n", head.to_ascii_lowercase()), body.into())
}

/// The time of the examples in RFC 9110, section 5.6.7.
const TIME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// Serves a file of ten bytes that was modified at [`TIME`].
fn serve_digits(folder: &TempDir) -> Server {
    let path = folder.write("site/file", "0123456789");
    set_modified(
        &path,
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777),
    );
    serve(folder)
}

fn set_modified(path: &std::path::Path, time: SystemTime) {
    let file = File::options().write(true).open(path);
    let set = file.and_then(|file| file.set_modified(time));
    set.expect("cannot set the time");
}

#[tokio::test]
async fn a_file_that_the_client_has_is_not_sent_again() {
    let folder = TempDir::new();
    let server = serve_digits(&folder);
    let modified = format!("\r\nlast-modified: {}\r\n", TIME.to_ascii_lowercase());
    let (head, body) = request(&server, "GET", "").await;
    assert!(head.contains(&modified), "{head}");
    assert_eq!(body, "0123456789");
    let (head, body) = request(&server, "HEAD", "").await;
    assert!(
        head.starts_with("http/1.1 200") && head.contains(&modified),
        "{head}"
    );
    assert!(head.contains("\r\ncontent-length: 10\r\n"), "{head}");
    assert_eq!(body, "");
    for (headers, status) in [
        (format!("If-Modified-Since: {TIME}\r\n"), "304"),
        // The other formats of dates.
        (
            "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n".into(),
            "304",
        ),
        (
            "If-Modified-Since: Sun Nov  6 08:49:37 1994\r\n".into(),
            "304",
        ),
        (
            "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n".into(),
            "200",
        ),
        ("If-Modified-Since: yesterday\r\n".into(), "200"),
        (
            format!("If-Modified-Since: {TIME}\r\nIf-None-Match: \"x\"\r\n"),
            "200",
        ),
    ] {
        let (head, body) = request(&server, "GET", &headers).await;
        assert!(
            head.starts_with(&format!("http/1.1 {status}")),
            "{headers}: {head}"
        );
        assert!(head.contains(&modified), "{headers}: {head}");
        let expected = if status == "304" { "" } else { "0123456789" };
        assert_eq!(body, expected, "{headers}");
    }
}

#[tokio::test]
async fn a_time_that_headers_cannot_have_is_left_out() {
    let folder = TempDir::new();
    let path = folder.write("site/file", "old");
    set_modified(
        &path,
        SystemTime::UNIX_EPOCH - Duration::from_secs(1_000_000),
    );
    let server = serve(&folder);
    let (head, body) = request(&server, "GET", "").await;
    assert!(!head.contains("last-modified"), "{head}");
    assert_eq!(body, "old");
}

/// RFC 9110, section 14.
#[tokio::test]
async fn a_part_of_a_file_can_be_requested() {
    let folder = TempDir::new();
    let server = serve_digits(&folder);
    for (range, content_range, expected) in [
        ("bytes=2-4", "bytes 2-4/10", "234"),
        ("bytes=0-0", "bytes 0-0/10", "0"),
        ("bytes=7-", "bytes 7-9/10", "789"),
        ("bytes=5-100", "bytes 5-9/10", "56789"),
        ("bytes=-3", "bytes 7-9/10", "789"),
        ("bytes=-100", "bytes 0-9/10", "0123456789"),
    ] {
        let headers = format!("Range: {range}\r\n");
        let (head, body) = request(&server, "GET", &headers).await;
        assert!(head.starts_with("http/1.1 206"), "{range}: {head}");
        let content_range = format!("\r\ncontent-range: {content_range}\r\n");
        assert!(head.contains(&content_range), "{range}: {head}");
        assert_eq!(body, expected, "{range}");
        let (head, _) = request(&server, "HEAD", &headers).await;
        assert!(head.starts_with("http/1.1 200"), "{range}: {head}");
    }
    for range in ["bytes=10-", "bytes=99-100"] {
        let (head, body) = request(&server, "GET", &format!("Range: {range}\r\n")).await;
        assert!(head.starts_with("http/1.1 416"), "{range}: {head}");
        assert!(
            head.contains("\r\ncontent-range: bytes */10\r\n"),
            "{range}: {head}"
        );
        assert_eq!(body, "", "{range}");
    }
    // What is no range, or several of them, has the whole file for a response.
    for range in [
        "bytes=4-2",
        "bytes=0-1,3-4",
        "bytes=a-b",
        "lines=1-2",
        "bytes",
    ] {
        let (head, body) = request(&server, "GET", &format!("Range: {range}\r\n")).await;
        assert!(head.starts_with("http/1.1 200"), "{range}: {head}");
        assert_eq!(body, "0123456789", "{range}");
    }
    let other_time = TIME.replace("1994", "1995");
    for (condition, expected) in [
        (TIME, "2345"),
        (&other_time, "0123456789"),
        ("\"x\"", "0123456789"),
    ] {
        let headers = format!("Range: bytes=2-5\r\nIf-Range: {condition}\r\n");
        let (_, body) = request(&server, "GET", &headers).await;
        assert_eq!(body, expected, "{condition}");
    }
}

#[tokio::test]
async fn a_large_file_arrives_whole() {
    let folder = TempDir::new();
    let bytes: String = (0..300_000)
        .map(|number| format!("{number:07}\n"))
        .collect();
    folder.write("site/file", &bytes);
    let server = serve(&folder);
    let (_, body) = request(&server, "GET", "").await;
    assert!(body == bytes);
    let (_, body) = request(&server, "GET", "Range: bytes=800000-\r\n").await;
    assert!(body == bytes[800_000..]);
}
