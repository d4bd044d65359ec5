//! The TLS alerts that mean something to an operator, by their numbers.

/// The alert of our verifier for a certificate other than the pinned one.
pub(crate) const ALERT_ACCESS_DENIED: u8 = 49;
/// The alert for a certificate outside its time of validity.
pub(crate) const ALERT_CERTIFICATE_EXPIRED: u8 = 45;
/// The alert for no application protocol in common.
pub(crate) const ALERT_NO_PROTOCOL: u8 = 120;
