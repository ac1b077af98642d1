// Tests the page of `stateroom-wasmi serve` in headless Chromium, against the built tool.
//
//     cargo build -p stateroom-wasmi
//     cd crates/cli/tests/browser && npm install      # playwright-core only; downloads no browser
//     STATEROOM_WASMI=../../../../target/debug/stateroom-wasmi npm test
//
// STATEROOM_WASMI  path of the tool (required)
// CHROMIUM         path of the browser (default: /usr/bin/chromium)
// SCREENSHOT       path of a PNG; if set, one more test writes a screenshot of the page there
//
// Little is assumed of the rooms: a text that one client of the chat sends appears in a message to
// every client of that room; the echo returns text and bytes unchanged.

import { test, before, after, describe } from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const REPO = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../../..");
const ROOMS = path.join(REPO, "examples/rooms/wasm");
const CHAT = path.join(ROOMS, "chat-rust-0.4.wasm");
const ECHO = [path.join(ROOMS, "echo-rust-0.4.wasm"), path.join(ROOMS, "echo-c.wasm")].find((file, index, all) => existsSync(file) || index === all.length - 1);
const HOSTILE = path.join(ROOMS, "hostile-rust-small.wasm");
const CHROMIUM = process.env.CHROMIUM || "/usr/bin/chromium";
const TOOL = process.env.STATEROOM_WASMI && path.resolve(process.env.STATEROOM_WASMI);
const { SCREENSHOT } = process.env;

// Not in a hook, whose failure the runner reports as "cancelled".
if (!TOOL || !existsSync(TOOL)) throw new Error("set STATEROOM_WASMI to the path of the built tool");
if (!existsSync(CHROMIUM)) throw new Error(`no browser at ${CHROMIUM}: install Chromium or set CHROMIUM`);

const START_MS = 30_000;
const STOP_MS = 15_000;
// Generous, so that tests pass on a busy machine; only a failing one waits so long.
const STEP_MS = 60_000;
const TEST = { timeout: 300_000 };

// ── The server ───────────────────────────────────────────────────────────────────────────────────

const running = new Set();
process.on("exit", () => { for (const child of running) child.kill("SIGKILL"); });

/** Starts the tool on a free port. `stop()` sends SIGTERM and checks the exit code. */
async function serve(module, { port = "0", args = [] } = {}) {
  const child = spawn(TOOL, ["serve", module, "--port", port, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  running.add(child);
  let output = "";
  const ended = new Promise((resolve) => {
    child.once("exit", (code, signal) => { running.delete(child); resolve({ code, signal }); });
    child.once("error", (error) => { running.delete(child); resolve({ code: null, signal: String(error) }); });
  });
  // With --admin-listen the second is the operators'.
  const wanted = args.includes("--admin-listen") ? 2 : 1;
  const [url, admin] = await new Promise((resolve, reject) => {
    const late = setTimeout(() => { child.kill("SIGKILL"); reject(new Error(`no address within ${START_MS} ms; its output:\n${output}`)); }, START_MS);
    const read = (chunk) => {
      output += chunk;
      // The character after the port shows that it is complete.
      const lines = output.match(/(?<=^|\n)http:\/\/127\.0\.0\.1:\d+(?=\D)/g) ?? [];
      if (lines.length === wanted) { clearTimeout(late); resolve(lines); }
    };
    child.stdout.setEncoding("utf8").on("data", read);
    child.stderr.setEncoding("utf8").on("data", read);
    ended.then(({ code, signal }) => { clearTimeout(late); reject(new Error(`the tool ended (${code ?? signal}) before it gave an address; its output:\n${output}`)); });
  });
  const stop = async () => {
    child.kill("SIGTERM");
    const late = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
    const { code, signal } = await ended;
    clearTimeout(late);
    assert.equal(code, 0, `after SIGTERM the tool should end with 0, not ${code ?? signal}; its output:\n${output}`);
  };
  return { url, admin, stop };
}

// ── The browser ──────────────────────────────────────────────────────────────────────────────────

let browser, chat, echo;

before(async () => {
  [chat, echo] = await Promise.all([serve(CHAT), serve(ECHO)]);
  // `launch` creates a temporary profile and removes it.
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ],
  });
}, { timeout: 300_000 });

after(async () => {
  await browser?.close();
  const stopped = await Promise.allSettled([chat?.stop(), echo?.stop()]);
  for (const { reason } of stopped) if (reason) throw reason;
}, { timeout: 300_000 });

/**
 * One test with a page of its own. The page must log no console errors or warnings, send requests
 * only to its own server, and not violate its content security policy.
 */
function withPage(name, options, body) {
  if (typeof options === "function") [options, body] = [{}, options];
  const { server = () => chat, hash = "", allow, ...context } = options;
  test(name, TEST, async () => {
    const home = await server();
    const browserContext = await browser.newContext({ viewport: { width: 1200, height: 800 }, colorScheme: "light", locale: "en", ...context });
    const complaints = [];
    const outside = [];
    const sockets = [];
    const urls = [home.url, home.game ?? home.url].map((url) => new URL(url).origin);
    const origins = new Set(urls.flatMap((origin) => [origin, origin.replace("http", "ws")]));
    browserContext.on("request", (request) => {
      const url = new URL(request.url());
      if (url.protocol !== "data:" && !origins.has(url.origin)) outside.push(url.href);
    });
    browserContext.on("page", (page) => {
      page.setDefaultTimeout(STEP_MS);
      page.on("console", (message) => { if (["error", "warning"].includes(message.type())) complaints.push(message.text()); });
      page.on("pageerror", (error) => complaints.push(String(error)));
      page.on("dialog", (dialog) => { complaints.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
      page.on("websocket", (socket) => {
        sockets.push(socket.url());
        if (!origins.has(new URL(socket.url()).origin)) outside.push(socket.url());
      });
    });
    try {
      const page = await browserContext.newPage();
      await page.goto(`${home.url}/${hash}`);
      await body(page, { home, sockets, context: browserContext });
      assert.deepEqual(complaints.filter((text) => !allow?.test(text)), [], "console errors or warnings");
      assert.deepEqual(outside, [], "requests to other servers");
    } finally {
      await browserContext.close();
    }
  });
}

// ── What a user does and sees ────────────────────────────────────────────────────────────────────

const panel = (page, letter) => page.getByRole("region", { name: `Client ${letter}`, exact: true });
const field = (page, letter) => page.getByRole("textbox", { name: `Message of client ${letter}`, exact: true });
const entries = (page, letter, kind) => page.getByRole("log", { name: `Log of client ${letter}`, exact: true }).locator(`[data-kind=${kind}]`);
const connectButton = (page) => page.getByRole("button", { name: "Connect a client" });
const leaveButton = (page, letter) => page.getByRole("button", { name: `Disconnect client ${letter}`, exact: true });
const returnButton = (page, letter) => page.getByRole("button", { name: `Reconnect client ${letter}`, exact: true });
const roomButton = (page, name) => page.getByRole("list", { name: "Open now" }).getByRole("button", { name });
const figure = (page, name) => page.locator(`[data-figure=${name}]`);

async function connect(page, letter) {
  await connectButton(page).click();
  await connected(page, letter);
}

async function connected(page, letter) {
  await panel(page, letter).getByText("connected", { exact: true }).waitFor();
  await leaveButton(page, letter).waitFor();
}

async function send(page, letter, text) {
  await field(page, letter).fill(text);
  await field(page, letter).press("Enter");
}

async function receives(page, letter, text) {
  await entries(page, letter, "received").filter({ hasText: text }).first().waitFor();
}

async function choose(page, letter, mode) {
  await panel(page, letter).locator("label", { hasText: mode }).click();
}

/** Waits until `probe` returns something truthy; the error has its last result. */
async function until(what, probe) {
  const end = Date.now() + STEP_MS;
  let last;
  do {
    last = await probe();
    if (last) return last;
    await new Promise((resolve) => setTimeout(resolve, 50));
  } while (Date.now() < end);
  assert.fail(`waited ${STEP_MS} ms for: ${what} (last: ${JSON.stringify(last)})`);
}

let rooms = 0;
/** A room that no other test uses. */
const freshRoom = (name) => `${name}-${++rooms}`;
const inRoom = (room) => `#${encodeURIComponent(room)}`;

describe("page", () => {
  withPage("two clients of a room see what one of them types", { hash: inRoom("talk") }, async (page) => {
    assert.match(await page.title(), /^talk · /);
    await connect(page, "A");
    await connect(page, "B");
    await field(page, "A").click();
    await page.keyboard.type("good morning");
    await page.keyboard.press("Enter");
    await receives(page, "A", "good morning");
    await receives(page, "B", "good morning");
    assert.equal(await entries(page, "A", "sent").count(), 1);
    assert.equal(await entries(page, "B", "sent").count(), 0);
    assert.equal(await field(page, "A").inputValue(), "", "a sent message leaves the field");
    await field(page, "A").press("ArrowUp");
    assert.equal(await field(page, "A").inputValue(), "good morning", "the up key brings it back");
  });

  withPage("the default room needs no name", async (page, { sockets }) => {
    assert.match(await page.title(), /^default room · /);
    await connect(page, "A");
    await send(page, "A", "nobody named this room");
    await receives(page, "A", "nobody named this room");
    assert.match(sockets[0], /\/ws\?token=[0-9a-f]{32}$/);
    await roomButton(page, /^default room/).waitFor();
  });

  withPage("an echo room gives text and bytes back", { server: () => echo, hash: inRoom("bytes") }, async (page) => {
    await connect(page, "A");
    await send(page, "A", "Grüße, 世界");
    await entries(page, "A", "received").getByText("Grüße, 世界", { exact: true }).waitFor();

    await choose(page, "A", "Hex");
    await send(page, "A", " 00 FF7f\t8081 ");
    const back = entries(page, "A", "received").filter({ hasText: "binary, 5 bytes" });
    await back.getByText("00 ff 7f 80 81", { exact: true }).waitFor();
    await entries(page, "A", "sent").filter({ hasText: "00 ff 7f 80 81" }).waitFor();
  });

  withPage("wrong hex is explained and not sent", { server: () => echo, hash: inRoom("wrong-hex") }, async (page) => {
    await connect(page, "A");
    await choose(page, "A", "Hex");
    const error = panel(page, "A").getByRole("alert");
    await send(page, "A", "01 0g");
    await error.getByText("“g” (character 5) is not a hex digit", { exact: false }).waitFor();
    assert.equal(await field(page, "A").getAttribute("aria-invalid"), "true");
    assert.equal(await field(page, "A").inputValue(), "01 0g", "the input is kept, to be corrected");

    await send(page, "A", "01 2");
    await error.getByText("3 digits do not make whole bytes", { exact: false }).waitFor();

    await send(page, "A", "01 02");
    await entries(page, "A", "received").filter({ hasText: "binary, 2 bytes" }).waitFor();
    assert.equal(await error.textContent(), "");
    assert.equal(await entries(page, "A", "sent").count(), 1, "only valid input was sent");
    assert.equal(await entries(page, "A", "received").filter({ hasText: "binary" }).count(), 1);
  });

  withPage("rooms are listed, can be chosen, and show their figures", async (page) => {
    const [one, two] = [freshRoom("figures"), freshRoom("figures")];
    const name = page.getByRole("textbox", { name: "Room", exact: true });
    await page.getByText(path.basename(CHAT), { exact: true }).waitFor();
    await page.getByText("ABI 0.4", { exact: true }).waitFor();

    await name.fill(one);
    await connect(page, "A"); // uses the name in the field although it was not submitted
    await connect(page, "B");
    await name.fill(two);
    await name.press("Enter");
    assert.equal(new URL(page.url()).hash, `#${two}`);
    await until("the room is not open yet", async () => (await figure(page, "state").textContent()) === "not open");
    await connect(page, "C");

    await roomButton(page, new RegExp(`^${two}\\b.*1 client,`)).waitFor();
    await roomButton(page, new RegExp(`^${one}\\b.*2 clients,`)).click();
    assert.equal(new URL(page.url()).hash, `#${one}`);
    assert.equal(await name.inputValue(), one);
    await send(page, "A", "count me");
    await receives(page, "B", "count me");
    await until("two clients", async () => (await figure(page, "clients").textContent()) === "2");
    await until("a message in", async () => Number(await figure(page, "messages_in").textContent()) >= 1);
    await until("messages out", async () => Number(await figure(page, "messages_out").textContent()) >= 1);
    assert.match(await figure(page, "state").textContent(), /^(open|busy)$/);
    assert.match(await figure(page, "memory_bytes").textContent(), /^[\d.]+ (B|KiB|MiB)$/);
    assert.match(await figure(page, "fuel_used").textContent(), /^[\d,.]+( [kMGTPE])?$/);

    await page.goBack();
    assert.equal(await name.inputValue(), two, "the back button goes to the room before");
  });

  withPage("rooms are isolated", async (page) => {
    const [one, two] = [freshRoom("apart"), freshRoom("apart")];
    const name = page.getByRole("textbox", { name: "Room", exact: true });
    await name.fill(one);
    await connect(page, "A");
    await connect(page, "B");
    await name.fill(two);
    await connect(page, "C");
    await send(page, "A", "only for the first");
    await receives(page, "B", "only for the first");
    await send(page, "C", "only for the second");
    await receives(page, "C", "only for the second");
    // A second round: messages to the wrong room would have arrived by now.
    await send(page, "B", "still the first");
    await receives(page, "A", "still the first");
    await send(page, "C", "still the second");
    await receives(page, "C", "still the second");
    assert.equal(await entries(page, "C", "received").filter({ hasText: "first" }).count(), 0);
    for (const letter of ["A", "B"]) assert.equal(await entries(page, letter, "received").filter({ hasText: "second" }).count(), 0);
  });

  withPage("a room's name may contain anything that a URL can encode", async (page, { sockets }) => {
    const room = "a/b?c#d %25 ü 😀 <b>&amp;";
    const name = page.getByRole("textbox", { name: "Room", exact: true });
    await name.fill(room);
    await name.press("Enter");
    assert.equal(decodeURIComponent(new URL(page.url()).hash.slice(1)), room);
    await connect(page, "A");
    assert.equal(decodeURIComponent(new URL(sockets[0]).pathname), `/ws/${room}`);
    await page.reload();
    assert.equal(await name.inputValue(), room, "the link leads to the same room");
    await name.fill("..");
    await name.press("Enter");
    await page.getByRole("alert").filter({ hasText: "cannot be called" }).waitFor();
    await page.goto(`${chat.url}/#%E0%A4%A`);
    await page.reload();
    assert.equal(await name.inputValue(), "%E0%A4%A", "invalid percent-encoding is kept as it is");
  });

  withPage("a client disconnects, and returns with its token", { hash: inRoom("return") }, async (page, { sockets }) => {
    await connect(page, "A");
    await connect(page, "B");
    await leaveButton(page, "A").click();
    await returnButton(page, "A").waitFor();
    await entries(page, "A", "note").filter({ hasText: "Disconnected by you" }).waitFor();
    await until("the room has one client", async () => (await figure(page, "clients").textContent()) === "1");

    await send(page, "A", "into the void");
    await panel(page, "A").getByRole("alert").filter({ hasText: "Not connected" }).waitFor();
    assert.equal(await entries(page, "A", "sent").count(), 0);
    assert.equal(await field(page, "A").inputValue(), "into the void");

    await send(page, "B", "while A is away");
    await receives(page, "B", "while A is away");
    await returnButton(page, "A").click();
    await connected(page, "A");
    assert.equal(await field(page, "A").inputValue(), "into the void");
    await send(page, "A", "back again");
    await receives(page, "A", "back again");
    await receives(page, "B", "back again");
    assert.equal(await entries(page, "A", "received").filter({ hasText: "while A is away" }).count(), 0);
    assert.equal(sockets.length, 3);
    assert.equal(sockets[2], sockets[0], "the same room with the same token");
    assert.notEqual(sockets[1], sockets[0], "each client has a token of its own");
  });

  withPage("a newer connection with the same token replaces the older", { hash: inRoom("replaced") }, async (page, { sockets, context }) => {
    await connect(page, "A");
    const other = await context.newPage();
    await other.goto(chat.url);
    await other.evaluate((url) => new Promise((resolve, reject) => {
      window.kept = new WebSocket(url);
      window.kept.onopen = () => resolve();
      window.kept.onerror = () => reject(new Error("no connection"));
    }), sockets[0]);
    await panel(page, "A").locator(".closed", { hasText: "1008" }).waitFor();
    await returnButton(page, "A").waitFor();
  });

  withPage("a client can be removed", { hash: inRoom("removed") }, async (page) => {
    await connect(page, "A");
    await connect(page, "B");
    await page.getByRole("button", { name: "Remove client A" }).click();
    await panel(page, "A").waitFor({ state: "detached" });
    await until("the room has one client", async () => (await figure(page, "clients").textContent()) === "1");
    await connect(page, "C");
    await send(page, "C", "hello B");
    await receives(page, "B", "hello B");
    for (const letter of ["B", "C"]) await page.getByRole("button", { name: `Remove client ${letter}` }).click();
    await page.getByText("No clients yet").waitFor();
  });

  withPage("the page can be used with the keyboard alone", async (page) => {
    const room = freshRoom("keys");
    const at = () => page.evaluate(() => { const { activeElement: e } = document; return e.getAttribute("aria-label") || e.labels?.[0]?.textContent.trim() || e.textContent.trim(); });
    const press = async (key, expected) => { await page.keyboard.press(key); assert.equal(await at(), expected, `after ${key}`); };
    await press("Tab", "Room");
    await page.keyboard.type(room);
    await page.keyboard.press("Enter");
    assert.equal(new URL(page.url()).hash, `#${room}`);
    await press("Tab", "Show room");
    await press("Tab", "Connect a client");
    await press("Enter", "Message of client A");
    await connected(page, "A");
    await page.keyboard.type("typed, never clicked");
    await press("Enter", "Message of client A");
    await receives(page, "A", "typed, never clicked");
    await press("Shift+Tab", "Text");
    await press("ArrowRight", "Hex");
    await press("Tab", "Message of client A");
    await page.keyboard.type("zz");
    await press("Enter", "Message of client A");
    await panel(page, "A").getByRole("alert").filter({ hasText: "not a hex digit" }).waitFor();
    await press("Shift+Tab", "Hex");
    await press("ArrowLeft", "Text");
    await press("Shift+Tab", "Log of client A");
    await press("Shift+Tab", "Remove client A");
    await press("Shift+Tab", "Disconnect client A");
    await page.keyboard.press("Enter");
    await until("the button keeps the focus and changes its name", async () => (await at()) === "Reconnect client A");
    await press("Enter", "Disconnect client A");
    await connected(page, "A");
    await press("Tab", "Remove client A");
    await press("Enter", "Connect a client");
    // A refresh of the list must not take the focus from a room's button.
    await press("Enter", "Message of client B");
    await connected(page, "B");
    await roomButton(page, new RegExp(`^${room}\\b`)).focus();
    const focused = () => page.evaluate(() => document.activeElement.closest("#rooms button")?.title);
    assert.equal(await focused(), room);
    const refreshed = () => page.waitForResponse((response) => response.url().endsWith("/rooms"));
    await refreshed();
    await refreshed();
    assert.equal(await focused(), room);
  });

  withPage("markup in a message or a name is shown as text", { hash: inRoom("<img src=x onerror=alert(1)>") }, async (page) => {
    const markup = "<b id=evil>bold</b><img src=/x onerror=alert(2)><script>alert(3)</script>";
    await connect(page, "A");
    await send(page, "A", markup);
    await receives(page, "A", markup);
    await entries(page, "A", "sent").filter({ hasText: markup }).waitFor();
    await roomButton(page, /<img src=x onerror=alert\(1\)>/).waitFor();
    assert.equal(await page.locator("#evil, img, .log script").count(), 0);
  });

  for (const width of [360, 320]) {
    withPage(`a phone ${width} px wide needs no horizontal scrolling`, { viewport: { width, height: 740 }, hasTouch: true, hash: inRoom("w".repeat(60)) }, async (page) => {
      await connectButton(page).tap();
      await connected(page, "A");
      await connectButton(page).tap();
      await connected(page, "B");
      await page.getByRole("button", { name: "Watch the room" }).tap();
      await page.getByText("what the room begins", { exact: false }).waitFor();
      await send(page, "A", "unbroken".repeat(40));
      await receives(page, "B", "unbroken".repeat(40));
      await page.locator("#live-log [data-kind=out]").filter({ hasText: "unbroken".repeat(40) }).waitFor();
      await choose(page, "A", "Hex");
      await send(page, "A", "nothex".repeat(30));
      await panel(page, "A").getByRole("alert").filter({ hasText: "hex digit" }).waitFor();
      const wide = await page.evaluate(() => ({
        page: document.documentElement.scrollWidth,
        log: Array.from(document.querySelectorAll(".log"), (log) => log.scrollWidth - log.clientWidth),
        over: Array.from(document.querySelectorAll("body *"))
          .filter((node) => !node.closest(".unseen, bdi") && node.getBoundingClientRect().right > innerWidth + 0.5)
          .map((node) => node.className || node.tagName),
      }));
      assert.deepEqual(wide, { page: width, log: [0, 0, 0], over: [] });
    });
  }

  withPage("statistics are polled only while the page is visible", async (page) => {
    let asked = 0;
    page.on("request", (request) => { if (request.url().endsWith("/rooms")) asked++; });
    await until("statistics are polled", () => asked >= 2);
    const turn = (state) => page.evaluate((to) => {
      Object.defineProperty(document, "visibilityState", { configurable: true, get: () => to });
      Object.defineProperty(document, "hidden", { configurable: true, get: () => to === "hidden" });
      document.dispatchEvent(new Event("visibilitychange"));
    }, state);
    await turn("hidden");
    await page.waitForTimeout(300);
    const before = asked;
    await page.waitForTimeout(2500);
    assert.equal(asked, before, "the page is hidden");
    await turn("visible");
    await until("statistics are polled again", () => asked > before);
  });

  // What the example rooms do not do is mocked in the browser.

  const CLOSES = [
    [1008, "replaced by a newer connection", /policy/],
    [1009, "", /message too big/],
    [1011, "trap: unreachable", /room faulted/],
    [1013, "outbox full", /too slow/],
    [4321, "<i>own</i>", /application/],
  ];
  withPage("a close shows its code, its meaning and its reason", async (page) => {
    await page.routeWebSocket(/\/ws/, (socket) => {
      socket.onMessage((text) => { const [code, reason] = CLOSES[Number(text)]; socket.close({ code, reason }); });
    });
    await page.reload();
    await connect(page, "A");
    for (const [index, [code, reason, meaning]] of CLOSES.entries()) {
      await send(page, "A", String(index));
      const notice = panel(page, "A").locator(".closed");
      await notice.filter({ hasText: String(code) }).waitFor();
      const text = await notice.textContent();
      assert.match(text, meaning);
      assert.ok(text.includes(reason), text);
      await entries(page, "A", "note").filter({ hasText: String(code) }).waitFor();
      await returnButton(page, "A").click();
      await connected(page, "A");
      await notice.waitFor({ state: "hidden" });
    }
  });

  withPage("a flood and a huge message stay within bounds", async (page) => {
    await page.routeWebSocket(/\/ws/, (socket) => {
      socket.onMessage((text) => {
        if (text === "flood") for (let n = 1; n <= 3000; n++) socket.send(`drop ${n}`);
        if (text === "huge") { socket.send("x".repeat(1_000_000)); socket.send(Buffer.alloc(100_000, 0xab)); }
      });
    });
    await page.reload();
    await connect(page, "A");
    await send(page, "A", "flood");
    const last = entries(page, "A", "received").getByText("drop 3000", { exact: true });
    await last.waitFor();
    const log = page.getByRole("log");
    assert.ok((await log.locator(".entry").count()) <= 500);
    assert.ok(await last.evaluate((node) => { const a = node.getBoundingClientRect(), b = node.closest(".log").getBoundingClientRect(); return a.top >= b.top && a.bottom <= b.bottom + 1; }), "the newest entry is in view");
    await panel(page, "A").getByText("1 sent, 3,000 received").waitFor();

    await log.evaluate((node) => { node.scrollTop = 0; });
    await until("the log stands at its top", () => log.evaluate((node) => node.scrollTop === 0));
    await page.waitForTimeout(100);
    await send(page, "A", "huge");
    await entries(page, "A", "received").filter({ hasText: "binary, 100,000 bytes" }).waitFor();
    await entries(page, "A", "received").filter({ hasText: "more characters" }).waitFor();
    assert.ok((await log.textContent()).length < 60_000);
  });

  withPage("new entries do not scroll the log while older ones are read", async (page) => {
    let server;
    await page.routeWebSocket(/\/ws/, (socket) => { server = socket; });
    await page.reload();
    await connect(page, "A");
    for (let n = 1; n <= 100; n++) server.send(`line ${n}`);
    await receives(page, "A", "line 100");
    const log = page.getByRole("log");
    await log.evaluate((node) => { node.scrollTop = 0; });
    await page.waitForTimeout(200);
    server.send("one more");
    const newest = page.getByRole("button", { name: "Newest" });
    await newest.waitFor();
    assert.ok((await log.evaluate((node) => node.scrollTop)) < 50);
    await newest.click();
    await newest.waitFor({ state: "hidden" });
    assert.ok(await log.evaluate((node) => node.scrollHeight - node.scrollTop - node.clientHeight < 2));
  });

  withPage("a malformed or very long list of rooms is handled", async (page) => {
    const many = Array.from({ length: 300 }, (_, n) => ({ id: `r${String(n).padStart(3, "0")}`, clients: n, state: "open", memory_bytes: 65536, fuel_used: 2 ** 60, messages_in: 1, messages_out: 1 }));
    const odd = [null, 7, { id: 3 }, { id: "a-odd", clients: "<b>2</b>", state: "on fire", memory_bytes: -1, fuel_used: null }, { id: "a-closed", state: "closed", clients: 0 }];
    await page.route("**/rooms", (route) => route.fulfill({ json: { module: "<b>m</b>", abi: 4, rooms: [...odd, ...many] } }));
    await page.reload();
    await page.getByText("<b>m</b>", { exact: true }).waitFor();
    const list = page.getByRole("list", { name: "Open now" });
    assert.equal(await list.getByRole("button").count(), 100);
    await page.getByText("and 202 more: type a name").waitFor();
    await roomButton(page, /^a-odd/).click();
    assert.deepEqual(await Promise.all(["state", "clients", "memory_bytes"].map((name) => figure(page, name).textContent())), ["unknown", "–", "–"]);
    await page.goto(`${chat.url}/#r299`);
    await roomButton(page, /^r299/).waitFor();
    await until("the figures of that room", async () => (await figure(page, "fuel_used").textContent()) === "1.15 E");
  });

  // A server that is replaced by another one, which has the rooms.
  let first, second;
  const rooms = mkdtempSync(path.join(tmpdir(), "stateroom-page-"));
  withPage("a client that comes back goes on with the next server", {
    hash: inRoom("harbour"),
    server: async () => (first = await serve(CHAT, { args: ["--data", rooms] })),
    allow: /ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_SOCKET_NOT_CONNECTED/,
  }, async (page) => {
    await page.getByLabel("that comes back").check();
    await connect(page, "A");
    await send(page, "A", "before");
    await receives(page, "A", "before");
    const { port } = new URL(first.url);
    await first.stop();
    await panel(page, "A").getByText("reconnecting", { exact: true }).waitFor();
    await send(page, "A", "meanwhile");
    second = await serve(CHAT, { port, args: ["--data", rooms] });
    await entries(page, "A", "note").filter({ hasText: "has not seen this client leave" }).waitFor();
    await receives(page, "A", "meanwhile");
    await send(page, "A", "after");
    await receives(page, "A", "after");
    await leaveButton(page, "A").click();
    await entries(page, "A", "note").filter({ hasText: "Disconnected by you" }).waitFor();
    await second.stop();
    rmSync(rooms, { recursive: true });
  });

  withPage("charts show the last minutes of the room", { server: () => echo, hash: inRoom("charts") }, async (page) => {
    const charts = page.locator("#charts figure");
    assert.equal(await page.locator("#charts").isVisible(), false, "there is nothing to show");
    await connect(page, "A");
    const points = async (index) => (await charts.nth(index).locator("polyline").getAttribute("points")).split(" ").length;
    await charts.nth(2).waitFor();
    for (let sent = 0; sent < 3; sent++) await send(page, "A", `message ${sent}`);
    await receives(page, "A", "message 2");
    const high = /1\.00(?= |$)/; // the most is at the top
    await until("the messages are in the chart", async () => high.test(await charts.nth(1).locator("polyline").getAttribute("points")));
    await until("there are more points", async () => (await points(0)) > 3);
    assert.match(await charts.nth(2).textContent(), /Memory64 KiB|Memory\d+ KiB/);
    assert.match(await charts.nth(0).locator("svg").getAttribute("aria-label"), /^Fuel per second, at most /);
  });

  let hostile;
  withPage("what has failed is listed with its reason", { server: async () => (hostile = await serve(HOSTILE)), hash: inRoom("doomed") }, async (page) => {
    await connect(page, "A");
    await send(page, "A", "panic");
    const failed = page.getByRole("region", { name: "Failed in the last minutes" });
    await failed.getByText("doomed", { exact: true }).waitFor();
    await failed.getByText("unreachable", { exact: false }).waitFor();
    await page.close();
    await hostile.stop();
  });

  const secrets = mkdtempSync(path.join(tmpdir(), "stateroom-token-"));
  let operated;
  withPage("operators use their token to see, watch, save and close rooms", {
    server: async () => {
      writeFileSync(path.join(secrets, "token"), "for-operators-only\n");
      const flags = ["--admin-listen", "127.0.0.1:0", "--admin-token-file", path.join(secrets, "token"), "--data", path.join(secrets, "rooms")];
      operated = await serve(ECHO, { args: flags });
      return { url: operated.admin, game: operated.url };
    },
    hash: inRoom("room of/somebody"),
    allow: /401|404/, // the browser's errors for a missing token, and for what clients are not shown
  }, async (page, { context }) => {
    const game = await context.newPage();
    await game.goto(`${operated.url}/${inRoom("room of/somebody")}`);
    await connect(game, "A");
    await page.bringToFront();
    const token = page.getByLabel("Operators’ token");
    assert.equal(await page.locator("#rooms button").count(), 0, "nothing is shown without the token");
    for (const [given, shown] of [["wrong", false], ["for-operators-only", true]]) {
      await token.fill(given);
      const answered = page.waitForResponse((response) => response.url().endsWith("/rooms"));
      await page.getByRole("button", { name: "Use it" }).click();
      assert.equal((await answered).status(), shown ? 200 : 401);
    }
    await roomButton(page, /^room of\/somebody/).waitFor();
    assert.equal(await connectButton(page).isVisible(), false, "no clients connect there");

    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Save the room" }).click()]);
    assert.equal(download.suggestedFilename(), "room_of_somebody.snapshot");
    const file = path.join(secrets, "snapshot");
    await download.saveAs(file);
    assert.ok(readFileSync(file).length > 100);

    const live = page.getByRole("region", { name: /^Live: / });
    assert.equal(await live.count(), 0, "nothing is watched before it is asked for");
    await page.getByRole("button", { name: "Watch the room" }).click();
    await live.getByText("what the room begins", { exact: false }).waitFor();
    await send(game, "A", "<b>hello</b>");
    for (const kind of ["in", "out"]) {
      const entry = live.locator(`.entry[data-kind=${kind}]`).filter({ hasText: "<b>hello</b>" });
      await entry.waitFor();
      assert.match(await entry.innerText(), kind === "in" ? /client 1:/ : /to (all|client 1):/);
    }
    assert.equal(await live.locator("b").count(), 0, "messages are text");
    await page.getByRole("button", { name: "Stop watching" }).click();
    await live.waitFor({ state: "hidden" });
    await page.getByRole("button", { name: "Watch the room" }).click();
    await live.getByText("what the room begins", { exact: false }).waitFor();
    assert.equal(await live.locator(".entry").count(), 0, "nothing was kept meanwhile");

    await page.getByRole("button", { name: "Replay the room" }).click();
    const past = page.getByRole("region", { name: /^Replay: / });
    for (const kind of ["in", "out"]) {
      await past.locator(`.entry[data-kind=${kind}]`).filter({ hasText: "<b>hello</b>" }).waitFor();
    }
    await past.getByText("since it was last saved", { exact: false }).waitFor();
    await page.getByRole("button", { name: "Watch the room" }).click();
    await live.getByText("what the room begins", { exact: false }).waitFor();

    await page.getByRole("button", { name: "Close the room" }).click();
    await page.getByRole("button", { name: "Really close it" }).click();
    await panel(game, "A").locator(".closed", { hasText: "1001" }).waitFor();
    await live.getByText("the room has ended", { exact: true }).waitFor();
    await page.getByRole("status").filter({ hasText: "closed" }).waitFor();
    await until("the room is gone", async () => (await page.locator("#rooms button").count()) === 0);
    await page.close();
    await game.close();
    await operated.stop();
    rmSync(secrets, { recursive: true });
  });

  let private_;
  withPage("a page for clients alone tells nothing of rooms", {
    server: async () => (private_ = await serve(ECHO, { args: ["--admin-listen", "127.0.0.1:0"] })),
    allow: /404/, // the browser's error for what is not there
  }, async (page) => {
    await connect(page, "A");
    await send(page, "A", "hello");
    await receives(page, "A", "hello");
    await page.getByText("shown at the operators’ address", { exact: true }).waitFor();
    await page.getByRole("status").filter({ hasText: "server reached" }).waitFor();
    await page.close();
    await private_.stop();
  });

  // Last: a server that stops while clients are connected.
  let leaving;
  withPage("a server that stops closes with 1001", {
    hash: inRoom("end"),
    server: async () => (leaving = await serve(CHAT)),
    allow: /ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_SOCKET_NOT_CONNECTED/, // the browser's errors for a server that is gone
  }, async (page) => {
    await connect(page, "A");
    await connect(page, "B");
    await leaving.stop();
    for (const letter of ["A", "B"]) {
      await panel(page, letter).locator(".closed", { hasText: "1001" }).filter({ hasText: "going away" }).waitFor();
      await entries(page, letter, "note").filter({ hasText: "1001" }).waitFor();
      await returnButton(page, letter).waitFor();
    }
    await page.getByRole("status").filter({ hasText: "not reachable" }).waitFor();
    await returnButton(page, "A").click();
    await panel(page, "A").locator(".closed", { hasText: "could not connect" }).waitFor();
  });

  if (SCREENSHOT) {
    let tidy; // a server without the rooms of the other tests
    withPage("a screenshot for the README", { hash: inRoom("harbour"), server: async () => (tidy = await serve(CHAT)) }, async (page, { context }) => {
      for (const room of ["chess-night", "chess-night", "standup"]) {
        const other = await context.newPage();
        await other.goto(`${tidy.url}/${inRoom(room)}`);
        await connect(other, "A");
      }
      await page.bringToFront();
      for (const letter of ["A", "B", "C"]) await connect(page, letter);
      const talk = [
        ["A", "Anyone at the harbour yet?"], ["B", "Here, by the blue boat."], ["C", "Five minutes away."],
        ["A", "Wind is 12 knots from the west."], ["C", "Good. I bring the coffee."], ["B", "Then we leave at nine."],
      ];
      for (const [letter, text] of talk) {
        await page.waitForTimeout(400);
        await send(page, letter, text);
        for (const each of ["A", "B", "C"]) await receives(page, each, text);
      }
      await field(page, "A").fill("On my way!");
      await roomButton(page, /^standup/).waitFor();
      await until("the figures are up to date", async () => Number(await figure(page, "messages_in").textContent()) >= talk.length);
      await page.mouse.move(0, 0);
      await page.evaluate(() => scrollTo(0, 0));
      await page.screenshot({ path: SCREENSHOT, animations: "disabled" });
      await page.close();
      await tidy.stop();
    });
  }
});
