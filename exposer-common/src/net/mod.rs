//! Pure packet decisions: values in, values out, no packet and no map in sight.
