"""Plans made of the cost model: tables, figures, advice and drawings of schedules."""
