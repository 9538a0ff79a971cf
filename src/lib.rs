//! A durable adapter between a company's systems and the MyCreditApp guest-connections API.
