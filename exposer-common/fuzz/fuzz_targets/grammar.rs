//! Any text as any annotation: a request or errors; a port list that is accepted prints as one that means the same.
#![no_main]

use std::collections::BTreeMap;

use exposer_common::k8s::annotations::KEYS;
use exposer_common::k8s::duration::parse_seconds;
use exposer_common::k8s::{AnnotationKeys, parse_ports, resolve};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = parse_seconds(text);
    let _ = AnnotationKeys::new(text);
    match parse_ports(text) {
        Ok(specs) => {
            let printed = specs
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(",");
            // Long lists of short entries may print longer than an annotation may be.
            if printed.len() < 4_096 {
                assert_eq!(parse_ports(&printed).unwrap(), specs);
            }
            assert!(resolve(&specs, &[]).is_err());
        }
        Err(error) => assert!(error.to_string().len() < 1_024),
    }
    let keys = AnnotationKeys::default();
    let annotations: BTreeMap<_, _> = KEYS
        .iter()
        .map(|name| (keys.key(name), text.to_owned()))
        .collect();
    let _ = keys.read(&annotations);
    let _ = keys.unknown(&BTreeMap::from([(keys.key(text), String::new())]));
});
