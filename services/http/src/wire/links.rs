//! Links: filled by the link role.
