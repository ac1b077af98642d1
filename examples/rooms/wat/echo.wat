;; Echo: everything that a client says is echoed to that client alone.
;;
;;   from a client                          reply            to
;;   a text, also an empty one              the same text    the sender
;;   a binary message, also an empty one    the same bytes   the sender
;;
;; This is the whole of the ABI 0.2, written by hand.

(module
  ;; The host's functions. The first parameter is the recipient: 0 is everybody, n is client n, and
  ;; -n is everybody except client n. The others are the address and the length of the bytes, which
  ;; the host copies before it returns.
  (import "env" "send_message" (func $send_message (param $to i32) (param $ptr i32) (param $len i32)))
  (import "env" "send_binary" (func $send_binary (param $to i32) (param $ptr i32) (param $len i32)))

  ;; One page of 64 KiB, and never more.
  (memory (export "memory") 1 1)

  ;; Which ABI this is: the two globals hold the addresses of the numbers 1 and 0.
  (global (export "JAMSOCKET_API_VERSION") i32 (i32.const 0))
  (global (export "JAMSOCKET_API_PROTOCOL") i32 (i32.const 4))
  (data (i32.const 0) "\01\00\00\00" "\00\00\00\00")

  ;; A bump allocator for the host's messages, behind those numbers. $next is the address of the
  ;; next block. Blocks are not reused one by one: once all are free, allocation starts over.
  (global $start i32 (i32.const 16))
  (global $end i32 (i32.const 65536))
  (global $next (mut i32) (i32.const 16))
  (global $blocks (mut i32) (i32.const 0))

  ;; Returns the address of $size bytes, or 0 if there are not that many.
  (func (export "jam_malloc") (param $size i32) (result i32)
    (local $block i32)
    (local.set $block (global.get $next))
    (if (i32.or
          (i32.eqz (local.get $size))
          (i32.gt_u (local.get $size) (i32.sub (global.get $end) (local.get $block))))
      (then (return (i32.const 0))))
    ;; The next block begins at a multiple of 16. This cannot go past the end, which is one itself.
    (global.set $next
      (i32.and
        (i32.add (i32.add (local.get $block) (local.get $size)) (i32.const 15))
        (i32.const -16)))
    (global.set $blocks (i32.add (global.get $blocks) (i32.const 1)))
    (local.get $block))

  (func (export "jam_free") (param $ptr i32) (param $size i32)
    ;; jam_malloc returns null for no bytes, so freeing null does nothing.
    (if (i32.or (i32.eqz (local.get $ptr)) (i32.eqz (global.get $blocks)))
      (then (return)))
    (global.set $blocks (i32.sub (global.get $blocks) (i32.const 1)))
    (if (i32.eqz (global.get $blocks))
      (then (global.set $next (global.get $start)))))

  (func (export "message") (param $client i32) (param $ptr i32) (param $len i32)
    (call $send_message (local.get $client) (local.get $ptr) (local.get $len)))

  (func (export "binary") (param $client i32) (param $ptr i32) (param $len i32)
    (call $send_binary (local.get $client) (local.get $ptr) (local.get $len)))

  ;; The room has no state, so it ignores the other events. The host requires the functions.
  (func (export "initialize") (param $room_ptr i32) (param $room_len i32))
  (func (export "connect") (param $client i32))
  (func (export "disconnect") (param $client i32))
  (func (export "timer")))
