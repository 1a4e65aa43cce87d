//! `sim SEED` runs one seed, `sim twice SEED` runs it twice and compares, `sim many FIRST COUNT` runs a range.

#![forbid(unsafe_code)]

use std::process::ExitCode;

const USAGE: &str = "\
Runs the whole node in virtual time.

  sim SEED              one seed
  sim twice SEED        one seed twice: both runs must be equal
  sim many FIRST COUNT  a range of seeds

Example: cargo run -p sim -- twice 42
A seed that fails prints the invariant that it broke. Exit: 0 all held, 1 not equal, 2 bad usage, 101 broken.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let numbers: Vec<u64> = words.iter().filter_map(|word| word.parse().ok()).collect();
    match (words.as_slice(), numbers.as_slice()) {
        ([_], [seed]) => {
            println!("seed {seed}: {:?}", sim::run(*seed));
            ExitCode::SUCCESS
        }
        (["twice", _], [seed]) => {
            let (first, second) = (sim::run(*seed), sim::run(*seed));
            println!("seed {seed}: {first:?}");
            if first == second {
                return ExitCode::SUCCESS;
            }
            println!("seed {seed}: {second:?}\nsame_seed_same_bytes does not hold");
            ExitCode::FAILURE
        }
        (["many", _, _], [first, count]) => {
            for seed in *first..first + count {
                // Printed first, so that it is known when it fails.
                print!("seed {seed}: ");
                println!("{:?}", sim::run(seed));
            }
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
