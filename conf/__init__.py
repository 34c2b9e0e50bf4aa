"""Configuration and calibrations, one YAML file per option. Data only: nothing is imported from here."""
