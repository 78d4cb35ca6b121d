"""The demonstration: a recurrent network on handwritten digits, its recurrent matrix moved in six ways."""
