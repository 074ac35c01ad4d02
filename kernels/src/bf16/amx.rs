//! The micro-kernel on AMX: two by two tiles of sums.
//!
//! The intrinsics are not stable, so the instructions stand as assembly, one block a call: the
//! compiler knows of no tile registers. The Linux kernel hands tiles to a process that asks.

use super::blocks::Group;
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::mem::offset_of;

/// Whether the processor has AMX-BF16 and the kernel lets this process use it; asks for it.
pub fn granted() -> bool {
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    /// `ARCH_REQ_XCOMP_PERM` of arch_prctl(2), for the tile registers (component 18).
    const REQUEST: [libc::c_long; 2] = [0x1023, 18];
    let wanted = AMX_BF16 | AMX_TILE;
    // SAFETY: every x86-64 processor has the instruction; newer compilers know that.
    #[allow(unused_unsafe)]
    let has = unsafe { __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & wanted == wanted };
    if !has {
        return false;
    }
    // SAFETY: the call reads two numbers and changes what the process may use, nothing else. It
    // fails on kernels without AMX, and where the system forbids it.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST[0], REQUEST[1]) == 0 }
}

/// The tile registers of this thread, all 16 rows of 64 bytes, until dropped.
pub struct Registers;

impl Registers {
    /// Configures them.
    ///
    /// # Safety
    /// [`granted`] has returned true.
    pub unsafe fn new() -> Self {
        #[repr(C, align(64))]
        struct Palette([u8; 64]);
        let mut palette = Palette([0; 64]);
        palette.0[0] = 1;
        for tile in 0..8 {
            palette.0[16 + 2 * tile] = 64;
            palette.0[48 + tile] = 16;
        }
        // SAFETY: palette 1 with eight tiles of 1 KiB is what AMX has.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &palette, options(nostack, preserves_flags));
        }
        Self
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: they were configured. Released, they cost nothing at a change of threads.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
    }
}

/// Loads the part of that number of one or two tiles of A, down, into registers 4 and 5, in the
/// first-level cache.
macro_rules! left {
    (1, $part:literal) => {
        concat!("tileloadd tmm4, [{a} + {s} + 1024 * ", $part, "]\n")
    };
    (2, $part:literal) => {
        concat!(left!(1, $part), "tileloadd tmm5, [{p} + {s} + 1024 * ", $part, "]\n")
    };
}

/// Loads the part of that number of one or two tiles of B, across, into registers 6 and 7; B
/// passes through the first-level cache (the hint T1).
macro_rules! right {
    (1, $part:literal) => {
        concat!("tileloaddt1 tmm6, [{b} + {s} + 1024 * ", $part, "]\n")
    };
    (2, $part:literal) => {
        concat!(right!(1, $part), "tileloaddt1 tmm7, [{q} + {s} + 1024 * ", $part, "]\n")
    };
}

/// A or B as loaded, down by across, multiplied onto the sums in registers 0 to 3.
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

/// Sums to memory: {p} points at the first tile's, {q} 16 rows below.
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

/// A loop along K, over tiles of so many parts: a and p point at the tiles of A, b and q at those
/// of B, and s is a tile's row.
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

/// Tiles of one part: the product.
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

/// Tiles of three parts: the five small products over all of K, then the large one, so that sums
/// are rounded at their full size once a product of A and B and not six times.
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

/// `rows` by `columns` tiles of sums, one or two each, of operands in one part or three.
///
/// # Safety
/// As [`Group`]'s fields promise, and this thread holds [`Registers`].
pub unsafe fn multiply(parts: usize, rows: usize, columns: usize, group: &Group) {
    // SAFETY: the caller's promise.
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
