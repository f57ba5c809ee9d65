//! Counting test results in what `cargo test` prints.

use std::fmt;
use std::ops::AddAssign;

/// Results of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed, and test programs that died without a result.
    pub failed: u64,
    /// Tests that were not run: ignored, or left out for want of privilege.
    pub skipped: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let Self {
            passed,
            failed,
            skipped,
        } = other;
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Reads the output of one `cargo test`, line by line.
#[derive(Debug, Default)]
pub struct Reader {
    counts: Counts,
    /// Test programs that said how many tests they would run, and have not yet said how these went.
    unfinished: u64,
    died: u64,
}

impl Reader {
    /// Takes the next line.
    pub fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if is_start(line) {
            // Test programs run one after the other: one that is still unfinished has died.
            self.died += self.unfinished;
            self.unfinished = 1;
        } else if let Some(counts) = parse_result(line) {
            self.counts += counts;
            self.unfinished = 0;
        }
    }

    /// What it came to, given whether cargo itself ended with success. The second value tells what was counted as
    /// failed beside failed tests.
    pub fn finish(mut self, success: bool) -> (Counts, Option<String>) {
        self.died += self.unfinished;
        self.counts.failed += self.died;
        if self.died > 0 {
            let died = self.died;
            return (
                self.counts,
                Some(format!(
                    "{died} test program(s) died without a result; counted as failed"
                )),
            );
        }
        if !success && self.counts.failed == 0 {
            self.counts.failed = 1;
            let text = "`cargo test` failed though no test did (see above); counted as one failure";
            return (self.counts, Some(text.to_owned()));
        }
        (self.counts, None)
    }
}

/// `running 12 tests`, which libtest prints first.
fn is_start(line: &str) -> bool {
    let count = line
        .strip_prefix("running ")
        .and_then(|rest| rest.strip_suffix(" tests").or(rest.strip_suffix(" test")));
    count.is_some_and(|count| count.parse::<u64>().is_ok())
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s`.
fn parse_result(line: &str) -> Option<Counts> {
    let rest = line.strip_prefix("test result: ")?;
    let (_, numbers) = rest.split_once(". ")?;
    let number = |name: &str| {
        numbers
            .split(';')
            .find_map(|part| part.trim().strip_suffix(name))
            .and_then(|count| count.trim().parse().ok())
    };
    Some(Counts {
        passed: number("passed")?,
        failed: number("failed")?,
        skipped: number("ignored")?,
    })
}

/// How many tests `--list` printed: one line for each, as `module::name: test`.
pub fn listed(text: &str) -> u64 {
    text.lines().map(|line| u64::from(line.ends_with(": test"))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, success: bool) -> (Counts, Option<String>) {
        let mut reader = Reader::default();
        text.lines().for_each(|line| reader.line(line));
        reader.finish(success)
    }

    const OK: &str = "\nrunning 3 tests\ntest a ... ok\ntest b ... ignored\n\
        test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.00s\n";
    const FAILED: &str = "running 1 test\ntest c ... FAILED\n\
        test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.23s\n";

    #[test]
    fn results_add_up() {
        let (counts, note) = read(&format!("{OK}{FAILED}{OK}"), false);
        assert_eq!(counts.to_string(), "4 passed, 1 failed, 2 skipped");
        assert_eq!(note, None);
    }

    #[test]
    fn a_program_that_dies_is_a_failure_wherever_it_stands() {
        let died = "running 7 tests\ntest d ... ok\n";
        for text in [format!("{OK}{died}"), format!("{died}{OK}")] {
            let (counts, note) = read(&text, false);
            assert_eq!(
                counts,
                Counts {
                    passed: 2,
                    failed: 1,
                    skipped: 1
                }
            );
            assert!(note.unwrap().contains("1 test program(s) died"));
        }
    }

    #[test]
    fn a_failure_of_cargo_itself_is_a_failure() {
        let (counts, note) = read("error: could not compile\n", false);
        assert_eq!(
            counts,
            Counts {
                passed: 0,
                failed: 1,
                skipped: 0
            }
        );
        assert!(note.unwrap().contains("no test did"));
        assert_eq!(read(OK, true).0.failed, 0);
    }

    #[test]
    fn what_only_resembles_a_result_is_none() {
        assert_eq!(
            parse_result("test result: ok. many passed; 0 failed; 0 ignored"),
            None
        );
        assert_eq!(
            parse_result(" test result: ok. 1 passed; 0 failed; 0 ignored"),
            None
        );
        assert!(
            !is_start("running all tests") && !is_start("running 3 testsuites") && is_start("running 1 test")
        );
    }

    #[test]
    fn a_list_is_counted() {
        assert_eq!(
            listed("a: test\nm::b: test\nbench_c: benchmark\n\n2 tests, 1 benchmark\n"),
            2
        );
    }
}
