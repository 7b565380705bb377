"""Who answers for which object."""
