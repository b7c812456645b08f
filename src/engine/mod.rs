//! What is in flight and what is done.
