//! `Prefer` and `Preference-Applied` (RFC 7240).
