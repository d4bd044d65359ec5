//! What a peer can make the receiver hold has a bound (P11).
