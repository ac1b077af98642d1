;; Floats: computes with every floating-point instruction and sends the bits of the results. The
;; same messages give the same bits on every processor, NaNs included.
;;
;;   from a client                          reply                                      to
;;   a text or a binary message             40 bytes: the state, see below             everybody
;;
;; The state is three doubles and four singles. Each byte of a message stirs it once, from all that
;; came before.

(module
  (import "env" "send_binary" (func $send_binary (param $to i32) (param $ptr i32) (param $len i32)))
  (memory (export "memory") 1 1)

  ;; Which interface this is for: globals that hold the addresses of the numbers.
  (data (i32.const 40) "\01\00\00\00\00\00\00\00")
  (global (export "JAMSOCKET_API_VERSION") i32 (i32.const 40))
  (global (export "JAMSOCKET_API_PROTOCOL") i32 (i32.const 44))

  (global $a (mut f64) (f64.const 1.5))
  (global $b (mut f64) (f64.const -0.7))
  (global $c (mut f64) (f64.const 1e-300))
  (global $p (mut f32) (f32.const 2.25))
  (global $q (mut f32) (f32.const -3.1))
  (global $r (mut f32) (f32.const 1e-38))
  (global $s (mut f32) (f32.const 0))

  ;; Messages go to address 64, whatever their length; the host never holds two.
  (func (export "jam_malloc") (param $size i32) (result i32)
    (select (i32.const 64) (i32.const 0) (i32.le_u (local.get $size) (i32.const 65472))))
  (func (export "jam_free") (param $ptr i32) (param $size i32))

  (func (export "message") (param $client i32) (param $ptr i32) (param $len i32)
    (call $reply (local.get $ptr) (local.get $len)))
  (func (export "binary") (param $client i32) (param $ptr i32) (param $len i32)
    (call $reply (local.get $ptr) (local.get $len)))

  (func $reply (param $ptr i32) (param $len i32)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $len)))
        (call $stir (i32.load8_u (local.get $ptr)))
        (local.set $ptr (i32.add (local.get $ptr) (i32.const 1)))
        (local.set $len (i32.sub (local.get $len) (i32.const 1)))
        (br $next)))
    (f64.store (i32.const 0) (global.get $a))
    (f64.store (i32.const 8) (global.get $b))
    (f64.store (i32.const 16) (global.get $c))
    (f32.store (i32.const 24) (global.get $p))
    (f32.store (i32.const 28) (global.get $q))
    (f32.store (i32.const 32) (global.get $r))
    (f32.store (i32.const 36) (global.get $s))
    (call $send_binary (i32.const 0) (i32.const 0) (i32.const 40)))

  (func $stir (param $byte i32)
    (local $x f64) (local $y f32)
    (local.set $x (f64.convert_i32_s (i32.sub (local.get $byte) (i32.const 100))))
    (local.set $y (f32.convert_i64_u (i64.extend_i32_u (local.get $byte))))

    ;; The doubles: arithmetic and roots, roundings, minima and maxima, signs.
    (global.set $a
      (f64.add
        (f64.div (f64.mul (global.get $a) (local.get $x)) (f64.sub (global.get $b) (f64.const 0.1)))
        (f64.sqrt (f64.sub (local.get $x) (f64.const 9)))))
    (global.set $b
      (f64.max
        (f64.min (f64.nearest (f64.mul (global.get $b) (f64.const 7.5))) (f64.const 1e18))
        (f64.sub (f64.floor (global.get $a)) (f64.ceil (f64.neg (local.get $x))))))
    (global.set $c
      (f64.copysign
        (f64.mul (f64.abs (global.get $c)) (f64.const 0.3))
        (f64.trunc (global.get $b))))
    ;; Replace a NaN, or the state would stay NaN.
    (if (f64.ne (global.get $a) (global.get $a))
      (then (global.set $a (f64.convert_i32_u (local.get $byte)))))
    (if (f64.gt (f64.abs (global.get $a)) (f64.const 1e200))
      (then (global.set $a (f64.div (f64.const 1) (global.get $a)))))

    ;; The singles: the same, and conversions between the two, to integers and back.
    (global.set $p
      (f32.add
        (f32.div (f32.mul (global.get $p) (local.get $y)) (f32.sub (global.get $q) (f32.const 0.1)))
        (f32.demote_f64 (global.get $a))))
    (global.set $q
      (f32.min
        (f32.max (f32.nearest (f32.mul (global.get $q) (f32.const 2.5))) (f32.neg (f32.const 1e9)))
        (f32.copysign (f32.sqrt (f32.abs (global.get $p))) (f32.demote_f64 (local.get $x)))))
    ;; Down to subnormal numbers, which some processors flush to zero.
    (global.set $r (f32.mul (global.get $r) (f32.const 0.9)))
    (global.set $s
      (f32.sub
        (f32.convert_i32_s (i32.trunc_sat_f64_s (global.get $a)))
        (f32.convert_i64_s (i64.trunc_sat_f32_u (f32.add (f32.floor (global.get $p)) (f32.ceil (global.get $q)))))))
    ;; A NaN with a payload, as it comes out of arithmetic, in every seventh state.
    (if (i32.eqz (i32.rem_u (local.get $byte) (i32.const 7)))
      (then
        (global.set $s (f32.add (f32.reinterpret_i32 (i32.const 0x7fa00001)) (local.get $y)))
        (global.set $c (f64.promote_f32 (f32.mul (f32.trunc (global.get $s)) (global.get $r)))))
      (else
        (if (f64.ne (global.get $c) (global.get $c))
          (then (global.set $c (f64.reinterpret_i64 (i64.const 0x000fffffffffffff))))))))

  (func (export "initialize") (param $room_ptr i32) (param $room_len i32))
  (func (export "connect") (param $client i32))
  (func (export "disconnect") (param $client i32))
  (func (export "timer")))
