//! Parking, step by step.

use super::*;
