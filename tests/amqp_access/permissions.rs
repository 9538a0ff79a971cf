//! What the adapter's user needs on the broker, and no more.
