//! The annotation grammar: from the annotations of a Service to what it asks for.
