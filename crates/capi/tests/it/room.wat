;; ABI 0.2. The first byte of a text says what it does with it; what it has no rule for it echoes.
(module
  (import "env" "send_message" (func $send_message (param i32 i32 i32)))
  (import "env" "send_binary" (func $send_binary (param i32 i32 i32)))
  (import "env" "set_timer" (func $set_timer (param i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get"
    (func $clock_time_get (param i32 i64 i32) (result i32)))
  (memory (export "memory") 1 2)
  (data (i32.const 256) "tock")
  (global $messages (mut i32) (i32.const 0))

  (func (export "jam_malloc") (param i32) (result i32) (i32.const 1024))
  (func (export "jam_free") (param i32 i32))
  (func (export "initialize") (param i32 i32))
  (func (export "connect") (param i32))
  (func (export "disconnect") (param i32))

  (func (export "timer")
    (call $send_message (i32.const 0) (i32.const 256) (i32.const 4)))

  (func (export "binary") (param $client i32) (param $ptr i32) (param $len i32)
    (call $send_binary (local.get $client) (local.get $ptr) (local.get $len)))

  (func (export "message") (param $client i32) (param $ptr i32) (param $len i32)
    (local $rule i32)
    (global.set $messages (i32.add (global.get $messages) (i32.const 1)))
    (if (local.get $len)
      (then (local.set $rule (i32.load8_u (local.get $ptr)))))
    ;; "!": a trap.
    (if (i32.eq (local.get $rule) (i32.const 0x21)) (then (unreachable)))
    ;; "~": a loop without end.
    (if (i32.eq (local.get $rule) (i32.const 0x7e)) (then (loop $spin (br $spin))))
    ;; "t": a timer in 10 ms, which says "tock" to all.
    (if (i32.eq (local.get $rule) (i32.const 0x74))
      (then (call $set_timer (i32.const 10)) (return)))
    ;; "*": to all.
    (if (i32.eq (local.get $rule) (i32.const 0x2a))
      (then (call $send_message (i32.const 0) (local.get $ptr) (local.get $len)) (return)))
    ;; "-": to all others.
    (if (i32.eq (local.get $rule) (i32.const 0x2d))
      (then
        (call $send_message
          (i32.sub (i32.const 0) (local.get $client)) (local.get $ptr) (local.get $len))
        (return)))
    ;; "n": how many messages there were.
    (if (i32.eq (local.get $rule) (i32.const 0x6e))
      (then
        (i32.store8 (i32.const 512) (i32.add (global.get $messages) (i32.const 0x30)))
        (call $send_message (local.get $client) (i32.const 512) (i32.const 1))
        (return)))
    ;; "p": prints the text.
    (if (i32.eq (local.get $rule) (i32.const 0x70))
      (then
        (i32.store (i32.const 512) (local.get $ptr))
        (i32.store (i32.const 516) (local.get $len))
        (drop (call $fd_write (i32.const 1) (i32.const 512) (i32.const 1) (i32.const 520)))
        (return)))
    ;; "r": eight random bytes.
    (if (i32.eq (local.get $rule) (i32.const 0x72))
      (then
        (drop (call $random_get (i32.const 512) (i32.const 8)))
        (call $send_binary (local.get $client) (i32.const 512) (i32.const 8))
        (return)))
    ;; "w": the wall time in nanoseconds, little endian.
    (if (i32.eq (local.get $rule) (i32.const 0x77))
      (then
        (drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 512)))
        (call $send_binary (local.get $client) (i32.const 512) (i32.const 8))
        (return)))
    (call $send_message (local.get $client) (local.get $ptr) (local.get $len)))
)
