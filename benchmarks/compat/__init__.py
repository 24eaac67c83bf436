"""The bridge under the façades: what a crossing between asyncio and trio costs."""
