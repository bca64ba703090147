/* Known work for the virtual board's golden counts: a freestanding AArch64 Linux program without a C library.
 * virtual_board.elf is this file as Debian 12's gcc made it; another toolchain may lay it out otherwise:
 *   aarch64-linux-gnu-gcc -nostdlib -static -s -Wl,--build-id=none -o virtual_board.elf virtual_board.S
 * Regions: 0 all, 1 matrix product, 2 copy, 3 pointer chase, 4 branches. */

    .equ GETPRIORITY, 141
    .equ WRITE, 64
    .equ EXIT, 93
    .equ TURNS, 200         /* of the product; DEPTH steps each */
    .equ DEPTH, 64
    .equ COPIED, 1 << 20    /* bytes */
    .equ NODES, 4096        /* NODE bytes apart, visited JUMP nodes apart */
    .equ NODE, 256
    .equ JUMP, 1031         /* has no factor in common with NODES */
    .equ CHOICES, 20000

    .macro region begin, id
    mov x0, #\begin
    movk x0, #0x4347, lsl #16
    mov x1, #\id
    mov x8, #GETPRIORITY
    svc #0
    .endm

    .macro address register, symbol
    adrp \register, \symbol
    add \register, \register, :lo12:\symbol
    .endm

    .bss
    .balign 4096
first:
    .skip COPIED
second:
    .skip COPIED

    .data
answer:
    .ascii "{\"done\": true}\n"
    .equ ANSWER_BYTES, . - answer

    .text
    .globl _start
_start:
    /* node i of `first` points to node i + JUMP */
    address x1, first
    mov x2, #0
    mov x5, #JUMP
1:  add x3, x2, x5
    and x3, x3, #NODES - 1
    add x3, x1, x3, lsl #8
    add x4, x1, x2, lsl #8
    str x3, [x4]
    add x2, x2, #1
    cmp x2, #NODES
    b.ne 1b
    region 1, 0

    region 1, 3
    address x1, first
    mov x2, #NODES
1:  ldr x1, [x1]
    subs x2, x2, #1
    b.ne 1b
    region 0, 3

    region 1, 2
    address x1, first
    address x2, second
    mov x3, #COPIED / 32
1:  ldp q0, q1, [x1], #32
    stp q0, q1, [x2], #32
    subs x3, x3, #1
    b.ne 1b
    region 0, 2

    region 1, 1
    mov x5, #TURNS
1:  address x1, first
    address x2, second
    mov x3, #DEPTH
2:  ldp q0, q1, [x1], #32
    ldr q2, [x2], #16
    fmla v16.4s, v0.4s, v2.s[0]
    fmla v17.4s, v1.4s, v2.s[0]
    fmla v18.4s, v0.4s, v2.s[1]
    fmla v19.4s, v1.4s, v2.s[1]
    fmla v20.4s, v0.4s, v2.s[2]
    fmla v21.4s, v1.4s, v2.s[2]
    fmla v22.4s, v0.4s, v2.s[3]
    fmla v23.4s, v1.4s, v2.s[3]
    subs x3, x3, #1
    b.ne 2b
    subs x5, x5, #1
    b.ne 1b
    region 0, 1

    region 1, 4
    mov x1, #1
    movz x2, #0x7f2d        /* Knuth's MMIX generator: x = x * a + c */
    movk x2, #0x4c95, lsl #16
    movk x2, #0xf42d, lsl #32
    movk x2, #0x5851, lsl #48
    movz x3, #0xf767
    movk x3, #0x814f, lsl #16
    movk x3, #0x0957, lsl #32   /* any odd number does */
    mov x4, #CHOICES
    mov x5, #0
1:  madd x1, x1, x2, x3
    tbz x1, #62, 2f
    add x5, x5, #3
    b 3f
2:  sub x5, x5, #1
3:  subs x4, x4, #1
    b.ne 1b
    region 0, 4

    region 0, 0
    mov x0, #1
    address x1, answer
    mov x2, #ANSWER_BYTES
    mov x8, #WRITE
    svc #0
    mov x0, #0
    mov x8, #EXIT
    svc #0
