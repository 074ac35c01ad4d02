//! AMX micro-kernel: 2 × 2 tiles of sums.
//!
//! The AMX intrinsics are unstable in Rust and the compiler does not know tile registers, so each
//! block of instructions is inline assembly. On Linux a process must request permission to use
//! tiles.

use super::blocks::Group;
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::mem::offset_of;

/// Whether the processor has AMX-BF16 and the operating system allows it. Requests the permission.
pub fn request_permission() -> bool {
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    /// `ARCH_REQ_XCOMP_PERM` of arch_prctl(2), for the tile registers (component 18).
    const REQUEST: [libc::c_long; 2] = [0x1023, 18];
    let wanted = AMX_BF16 | AMX_TILE;
    // SAFETY: every x86-64 processor has the instruction. Newer compilers know that, hence the
    // `allow`.
    #[allow(unused_unsafe)]
    let has = unsafe { __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & wanted == wanted };
    if !has {
        return false;
    }
    // SAFETY: the call takes two numbers and only changes the process's permissions. It fails on
    // kernels without AMX and where the system forbids it.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST[0], REQUEST[1]) == 0 }
}

/// The tile registers of this thread: 16 rows of 64 bytes each. Released on drop.
pub struct Registers;

impl Registers {
    /// Configures the tiles.
    ///
    /// # Safety
    /// [`request_permission`] returned true.
    pub unsafe fn new() -> Self {
        #[repr(C, align(64))]
        struct Palette([u8; 64]);
        let mut palette = Palette([0; 64]);
        palette.0[0] = 1;
        for tile in 0..8 {
            palette.0[16 + 2 * tile] = 64;
            palette.0[48 + tile] = 16;
        }
        // SAFETY: palette 1 has eight tiles of 1 KiB, as configured here.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &palette, options(nostack, preserves_flags));
        }
        Self
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: the tiles were configured. Once released they cost nothing at a context switch.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
    }
}

/// Loads part number `$part` of one or two vertically adjacent tiles of A into registers 4 and 5,
/// with caching in L1.
macro_rules! left {
    (1, $part:literal) => {
        concat!("tileloadd tmm4, [{a} + {s} + 1024 * ", $part, "]\n")
    };
    (2, $part:literal) => {
        concat!(left!(1, $part), "tileloadd tmm5, [{p} + {s} + 1024 * ", $part, "]\n")
    };
}

/// Loads part number `$part` of one or two horizontally adjacent tiles of B into registers 6 and 7,
/// with the T1 hint: B streams through L1.
macro_rules! right {
    (1, $part:literal) => {
        concat!("tileloaddt1 tmm6, [{b} + {s} + 1024 * ", $part, "]\n")
    };
    (2, $part:literal) => {
        concat!(right!(1, $part), "tileloaddt1 tmm7, [{q} + {s} + 1024 * ", $part, "]\n")
    };
}

/// Multiplies the loaded tiles (down × across) onto the sums in registers 0 to 3.
macro_rules! times {
    (1, 1) => {
        "tdpbf16ps tmm0, tmm4, tmm6\n"
    };
    (1, 2) => {
        concat!(times!(1, 1), "tdpbf16ps tmm1, tmm4, tmm7\n")
    };
    (2, 1) => {
        concat!(times!(1, 1), "tdpbf16ps tmm2, tmm5, tmm6\n")
    };
    (2, 2) => {
        concat!(times!(1, 2), "tdpbf16ps tmm2, tmm5, tmm6\n", "tdpbf16ps tmm3, tmm5, tmm7\n")
    };
}

/// Stores the sums. {p} points to the first tile, {q} to the one 16 rows below.
macro_rules! store {
    (1, 1) => {
        "tilestored [{p} + {s}], tmm0\n"
    };
    (1, 2) => {
        concat!(store!(1, 1), "tilestored [{p} + {s} + 64], tmm1\n")
    };
    (2, 1) => {
        concat!(store!(1, 1), "tilestored [{q} + {s}], tmm2\n")
    };
    (2, 2) => {
        concat!(
            store!(1, 2),
            "tilestored [{q} + {s}], tmm2\n",
            "tilestored [{q} + {s} + 64], tmm3\n"
        )
    };
}

/// Loop along K over tiles of `$parts` parts. {a} and {p} point to the tiles of A, {b} and {q} to
/// those of B, {s} is the row stride of a tile.
macro_rules! along {
    ($parts:literal, $($step:expr),+) => {
        concat!(
            "mov {k}, [{g} + {depth}]\n",
            "mov {a}, [{g} + {left}]\n",
            "mov {b}, [{g} + {right}]\n",
            "mov {q}, [{g} + {step}]\n",
            "shl {q}, 10\n",
            "lea {p}, [{a} + {q}]\n",
            "add {q}, {b}\n",
            "test {k}, {k}\n",
            "jz 3f\n",
            "2:\n",
            $($step,)+
            "add {a}, 1024 * ", $parts, "\n",
            "add {b}, 1024 * ", $parts, "\n",
            "add {p}, 1024 * ", $parts, "\n",
            "add {q}, 1024 * ", $parts, "\n",
            "dec {k}\n",
            "jnz 2b\n",
            "3:\n",
        )
    };
}

/// Zeroes the sums, runs the loops and stores the sums.
macro_rules! block {
    ($group:ident, $down:tt, $across:tt, $($loops:expr),+) => {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            $($loops,)+
            "mov {p}, [{g} + {sums}]",
            "mov {s}, [{g} + {stride}]",
            "mov {q}, {s}",
            "shl {q}, 4",
            "add {q}, {p}",
            store!($down, $across),
            g = in(reg) $group,
            k = out(reg) _,
            a = out(reg) _,
            b = out(reg) _,
            p = out(reg) _,
            q = out(reg) _,
            s = inout(reg) 64usize => _,
            left = const offset_of!(Group, a),
            right = const offset_of!(Group, b),
            depth = const offset_of!(Group, depth),
            step = const offset_of!(Group, step),
            sums = const offset_of!(Group, sums),
            stride = const offset_of!(Group, stride),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// Operands in one part: a single product.
macro_rules! rounded {
    ($group:ident, $down:tt, $across:tt) => {
        block!(
            $group,
            $down,
            $across,
            along!(1, left!($down, 0), right!($across, 0), times!($down, $across))
        )
    };
}

/// Operands in three parts: the five small products over all of K first, then the large one. So the
/// full-size sums are rounded once per product of A and B instead of six times.
macro_rules! split {
    ($group:ident, $down:tt, $across:tt) => {
        block!(
            $group,
            $down,
            $across,
            along!(
                3,
                left!($down, 0),
                right!($across, 2),
                times!($down, $across),
                right!($across, 1),
                times!($down, $across),
                left!($down, 1),
                times!($down, $across),
                right!($across, 0),
                times!($down, $across),
                left!($down, 2),
                times!($down, $across)
            ),
            along!(3, left!($down, 0), right!($across, 0), times!($down, $across))
        )
    };
}

/// Computes `rows` × `columns` tiles of sums, one or two each, of operands in one part or three.
///
/// # Safety
/// The contract of [`Group`]'s fields, and this thread holds [`Registers`].
pub unsafe fn multiply(parts: usize, rows: usize, columns: usize, group: &Group) {
    // SAFETY: the caller's contract.
    unsafe {
        match (parts, rows, columns) {
            (1, 2, 2) => rounded!(group, 2, 2),
            (1, 2, _) => rounded!(group, 2, 1),
            (1, _, 2) => rounded!(group, 1, 2),
            (1, _, _) => rounded!(group, 1, 1),
            (_, 2, 2) => split!(group, 2, 2),
            (_, 2, _) => split!(group, 2, 1),
            (_, _, 2) => split!(group, 1, 2),
            _ => split!(group, 1, 1),
        }
    }
}
