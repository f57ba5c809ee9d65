//! From aya's errors to the operator's: aya's `Display` hides the cause, which is in the chain of sources.

use std::error::Error;

use crate::datapath::DatapathError;

/// `error` with all its causes, outermost first.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// A closure for `map_err`: says in words what was tried.
pub fn bpf<E: Error>(action: &str) -> impl FnOnce(E) -> DatapathError + '_ {
    move |error| DatapathError::Bpf(format!("{action}: {}", chain(&error)))
}

/// The number that the system gave, if the error carries one.
pub fn os_error(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(code) = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error)
        {
            return Some(code);
        }
        current = error.source();
    }
    None
}
