//! Charts as SVG: lines over an axis, nothing more.
