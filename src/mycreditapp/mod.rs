//! mycreditapp
