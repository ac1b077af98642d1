// Tests that `stateroom-wasmi dev` builds the client of a `stateroom.toml`, so that pages can load it: with
// the real Cargo and wasm-bindgen, in headless Chromium.
//
// STATEROOM_WASMI  path of the built tool (required)
// CHROMIUM         path of the browser (default: /usr/bin/chromium)
// GAME_TARGET      Cargo's target folder for game/ (default: one for this run)
//
// `wasm-bindgen` must be on the PATH, in the version of game/Cargo.lock, and so must be a cargo that builds
// for wasm32-wasip1 and wasm32-unknown-unknown.

import { test } from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const GAME = path.join(path.dirname(fileURLToPath(import.meta.url)), "game");
const TOOL = process.env.STATEROOM_WASMI && path.resolve(process.env.STATEROOM_WASMI);
if (!TOOL) throw new Error("set STATEROOM_WASMI to the path of the built tool");

// Generous: two packages and what they depend on are compiled.
const BUILD_MS = 1_200_000;

/** Runs `dev` in a folder; resolves when it serves. */
async function dev(folder) {
  const env = { ...process.env, CARGO_TARGET_DIR: process.env.GAME_TARGET ?? path.join(folder, "target") };
  const child = spawn(TOOL, ["dev", folder, "--port", "0", "--workers", "1"], { env, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  let serves = false;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const url = await new Promise((resolve, reject) => {
    const late = setTimeout(() => { child.kill("SIGKILL"); reject(new Error(`it serves nothing:\n${output}`)); }, BUILD_MS);
    const read = (chunk) => {
      output += chunk;
      const line = output.match(/(?<=^|\n)http:\/\/127\.0\.0\.1:\d+(?=\n)/);
      if (line) { serves = true; clearTimeout(late); resolve(line[0]); }
      // It waits for a change, which nobody makes.
      if (!serves && output.includes("has failed")) { clearTimeout(late); child.kill("SIGKILL"); reject(new Error(output)); }
    };
    child.stdout.setEncoding("utf8").on("data", read);
    child.stderr.setEncoding("utf8").on("data", read);
    ended.then(() => { clearTimeout(late); reject(new Error(`it has ended:\n${output}`)); });
  });
  return { url, stop: () => { child.kill("SIGTERM"); return ended; } };
}

test("dev builds a client that a page loads, and builds it again", { timeout: 2 * BUILD_MS }, async (context) => {
  const folder = mkdtempSync(path.join(tmpdir(), "stateroom-game-"));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  cpSync(GAME, folder, { recursive: true });
  const server = await dev(folder);
  context.after(() => server.stop());
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
  });
  context.after(() => browser.close());
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => { if (message.type() === "error") errors.push(message.text()); });

  await page.goto(server.url);
  const output = page.locator("output");
  await output.filter({ hasText: "WELCOME!" }).waitFor();

  const source = path.join(folder, "client/src/lib.rs");
  const text = readFileSync(source, "utf8");
  const notice = async () => (await (await fetch(`${server.url}/rooms`)).json()).notice;
  const until = async (what, holds) => {
    const end = Date.now() + BUILD_MS;
    while (!(await holds())) {
      assert.ok(Date.now() < end, what);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  };
  // What does not compile is on the page, and what was built before is served on.
  writeFileSync(source, text.replace("text.to_uppercase()", "text.to_loudcase()"));
  await until("the error is shown", async () => (await notice())?.includes("to_loudcase"));
  await page.reload();
  await output.filter({ hasText: "WELCOME!" }).waitFor();
  writeFileSync(source, text.replace('"!"', '"?"'));
  await until("the client is built again", async () => !(await notice()));
  await page.reload();
  await output.filter({ hasText: "WELCOME?" }).waitFor();
  assert.deepEqual(errors, []);
});
