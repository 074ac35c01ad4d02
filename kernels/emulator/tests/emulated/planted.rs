//! Tests that the emulator detects bugs: kernels and launches with one bug each.

use crate::buffer::Buffer;
use crate::emulator::{Error, kernels, launch};
use planish_kernels::cuda::{Arg, Launch, StorageType};

const THREADS: usize = 64;

/// Makes a launch invalid.
type Change = fn(&mut Launch);

fn planted(kernel: &str, args: Vec<Arg>) -> Launch {
    let kernel = format!("planted_{kernel}");
    let (grid, block) = ([1; 3], [THREADS as u32, 1, 1]);
    Launch { kernel, file: "planted", grid, block, shared: 4 * THREADS as u32, args }
}

fn run(one: &Launch, order: u32) -> Result<(), Error> {
    // SAFETY: buffers of these tests hold THREADS numbers, as the kernels expect.
    unsafe { launch(one, order) }
}

#[test]
fn a_missing_barrier_makes_results_depend_on_thread_order() {
    let x = Buffer::numbers(StorageType::F32, &(0..THREADS).map(|i| i as f64).collect::<Vec<_>>());
    let found: Vec<Vec<u64>> = (0..4)
        .map(|order| {
            let y = Buffer::blank(4 * THREADS);
            let args = vec![Arg::Pointer(x.address()), Arg::Pointer(y.address())];
            run(&planted("missing_barrier", args), order).unwrap();
            y.read(StorageType::F32).into_iter().map(f64::to_bits).collect()
        })
        .collect();
    assert!(found.iter().any(|bits| *bits != found[0]));
}

#[test]
fn barriers_that_not_all_threads_reach_are_errors() {
    for (kernel, message) in
        [("divergent_barrier", "different kinds"), ("partial_shuffle", "not reached by all")]
    {
        let y = Buffer::blank(4 * THREADS);
        for order in 0..3 {
            let error = run(&planted(kernel, vec![Arg::Pointer(y.address())]), order).unwrap_err();
            assert!(error.what.contains(message), "{error}");
        }
    }
}

#[test]
fn unwritten_shared_memory_is_nan() {
    let y = Buffer::numbers(StorageType::F32, &[0.0; THREADS]);
    run(&planted("unwritten_shared", vec![Arg::Pointer(y.address())]), 0).unwrap();
    assert!(y.read(StorageType::F32).iter().all(|x| x.is_nan()));
}

#[test]
fn invalid_launches_are_errors() {
    let y = Buffer::blank(4 * THREADS);
    let right = planted("unwritten_shared", vec![Arg::Pointer(y.address())]);
    let wrong: [(&str, Change); 6] = [
        ("no such kernel", |one| one.kernel = "planted_nothing".into()),
        ("takes 1 arguments", |one| one.args.clear()),
        ("has 8 bytes, not 4", |one| one.args = vec![Arg::I32(1)]),
        ("more than 256 threads", |one| one.block[0] = 257),
        ("invalid launch configuration", |one| one.grid[0] = 0),
        ("invalid launch configuration", |one| one.shared = 49 << 10),
    ];
    for (message, change) in wrong {
        let mut launch = right.clone();
        change(&mut launch);
        let error = run(&launch, 0).unwrap_err();
        assert!(error.what.contains(message), "{error}");
    }
    run(&right, 0).unwrap();
    assert!(kernels().iter().any(|name| name == "planted_unwritten_shared"));
}

/// Reads past its input. Under the sanitizer this ends the process, so it runs in a child process.
#[test]
#[cfg(sanitized)]
#[ignore = "run by the next test"]
fn overrun() {
    let [x, y] = [Buffer::blank(4 * THREADS), Buffer::blank(4 * THREADS)];
    let args = vec![Arg::Pointer(x.address()), Arg::Pointer(y.address())];
    run(&planted("overrun", args), 0).unwrap();
}

#[test]
#[cfg(sanitized)]
fn the_sanitizer_finds_an_overrun() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "planted::overrun"])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&child.stderr);
    assert!(!child.status.success() && log.contains("heap-buffer-overflow"), "{log}");
}
