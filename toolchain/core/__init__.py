"""What every room stands on: settings, the console, errors, programs, records. It knows no other room."""
